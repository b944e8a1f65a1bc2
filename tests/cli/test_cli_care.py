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
