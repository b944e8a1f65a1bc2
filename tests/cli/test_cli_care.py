# SPDX-License-Identifier: MIT
"""Taking care of the service: backup and doctor, against a fake one."""

ARCHIVE = b"paku-ota-backup.json\0" + b"x" * 3_000_000


def test_backup_bar(cli, service, tmp_path):
    service.answer("GET", "/api/admin/backup", ARCHIVE)
    terminal = cli.on_terminal("backup", str(tmp_path / "b.tar"))
    assert terminal.wait_exit() == 0
    assert "100 %  2.9 MiB of 2.9 MiB" in terminal.text() and "checked" not in terminal.text()
    assert "paku-otad --restore FILE" in terminal.text()
    assert (tmp_path / "b.tar").read_bytes() == ARCHIVE
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600


def test_backup_keeps_nothing_else(cli, service, tmp_path):
    """What answers there well and is none, says no, or is not there."""
    path = tmp_path / "b.tar"
    for answer, code, words in (({"status": "ok"}, 3, "something else than a backup"), (b"", 3, "something else"),
                                ((409, {"detail": "another backup"}), 1, "another backup"),
                                ((500, b"<html>"), 3, "without a reason")):
        service.answer("GET", "/api/admin/backup", answer)
        run = cli("backup", str(path))
        assert run.returncode == code and words in run.stderr, run.stderr
        assert list(tmp_path.glob("b.tar*")) == []


# --- doctor ---

def findings(*checks, **more):
    return {"version": "0.1.0", "now": "2026-01-01T00:00:00.000000Z", "checks": [
        dict(zip(("check", "level", "finding", "advice"), c)) for c in checks],
        "test_download": {"configured": False, "base_url": "http://here", "url": None, "checksum_sha256": None,
                          "file_size": 0}, **more}


def test_doctor_lines(cli, service):
    service.answer("GET", "/api/admin/doctor", findings(
        ("store", "ok", "whole", None), ("disk", "warning", "little\x1b[31m room", "make\nroom"), version="9.9.9"))
    run = cli("doctor")
    lines = run.stdout.splitlines()
    assert lines[0] == "ok       store     whole"
    assert lines[1].startswith("warning  disk      little") and "\x1b" not in lines[1] and "make" in lines[1]
    assert lines[2].startswith("warning  version   the service is of version 9.9.9, and this is paku-ota 0.")
    # Its clock is that of new year's day.
    assert lines[3].startswith("problem  clock     the service's clock is ") and run.returncode == 1
    assert lines[4].startswith("ok       address   there is no release yet") and len(lines) == 5


def test_doctor_of_what_is_no_service(cli, service):
    service.answer("GET", "/api/admin/doctor", (404, {"detail": "there is nothing"}))
    run = cli("doctor")
    assert run.returncode == 1 and run.stdout.startswith("problem  service   there is nothing. To do: ")
    assert run.stderr == ""
