# SPDX-License-Identifier: MIT
"""The curl lines that people already use, as they are written."""
import glob
import json
import os
import re
import subprocess

import pytest

import images
import postgres
from service import STORE

# What the user's own description says, for clones without it beside them.
EMBEDDED = r'''
```bash
curl -X POST \
  "http://server:8080/api/admin/firmware/upload?version=1.2.0&device_model=esp32&is_signed=false" \
  -H "X-API-Key: $OTA_API_KEY" \
  -F "file=@firmware.bin"
```
```bash
# Test rollout — specific devices
curl -X POST "http://server:8080/api/admin/rollout/create" \
  -H "Content-Type: application/json" \
  -H "X-API-Key: $OTA_API_KEY" \
  -d '{"name":"v1.2.0-test","firmware_version":"1.2.0","device_model":"esp32","target_type":"specific","target_filter":{"device_ids":["esp32_001"]},"is_active":true}'

# Canary rollout — 10 %
curl -X POST "http://server:8080/api/admin/rollout/create" \
  -H "Content-Type: application/json" \
  -H "X-API-Key: $OTA_API_KEY" \
  -d '{"name":"v1.2.0-canary","firmware_version":"1.2.0","device_model":"esp32","target_type":"canary","rollout_percentage":10,"is_active":true}'

# Full production
curl -X POST "http://server:8080/api/admin/rollout/create" \
  -H "Content-Type: application/json" \
  -H "X-API-Key: $OTA_API_KEY" \
  -d '{"name":"v1.2.0-prod","firmware_version":"1.2.0","device_model":"esp32","target_type":"all","rollout_percentage":100,"is_active":true}'
```
```bash
curl -X POST "http://server:8080/api/admin/rollout/{rollout_id}/deactivate" \
  -H "X-API-Key: $OTA_API_KEY"
```
```bash
# OTA service health
curl http://server:8080/health
```
```sql
SELECT current_firmware_version, COUNT(*) as count
FROM devices
GROUP BY current_firmware_version ORDER BY count DESC;

-- Update success rate (last 24 h)
SELECT status, COUNT(*) as count
FROM device_update_status
WHERE reported_at > NOW() - INTERVAL '24 hours'
  AND status IN ('success', 'failed')
GROUP BY status;

-- Recent activity
SELECT DATE_TRUNC('hour', reported_at) as hour, status, COUNT(*)
FROM device_update_status
WHERE reported_at > NOW() - INTERVAL '7 days'
GROUP BY hour, status ORDER BY hour DESC;
```
```bash
docker exec paku_postgres psql -U paku -d paku -c \
  "SELECT * FROM device_update_status WHERE device_id='esp32_001' ORDER BY reported_at DESC LIMIT 5;"
```
'''


def curl_lines(text):
    """Each curl command of the ```bash blocks, its continuation lines joined as a shell does."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", "").splitlines():
            if line.startswith("curl "):
                found.append(line)
    return found


def sql_queries(text):
    """Each query of the ```sql blocks, and what is given to psql."""
    found = re.findall(r'psql [^"]*-c \\?\s*"([^"]+)"', text)
    for block in re.findall(r"^```sql\n(.*?)^```", text, re.M | re.S):
        found += [q.strip() for q in re.sub(r"--.*", "", block).split(";") if q.strip()]
    return found


def seeds():
    texts = [("embedded", EMBEDDED)]
    for path in sorted(glob.glob(os.path.join(images.SHARED, "seed", "*.txt"))):
        with open(path) as f:
            texts.append((os.path.basename(path), f.read()))
    return texts


@pytest.mark.parametrize("text", [t for _, t in seeds()], ids=[n for n, _ in seeds()])
def test_every_curl_line_works_as_written(service, tmp_path, text):
    lines = curl_lines(text)
    assert any("firmware/upload" in line for line in lines)
    assert sum("rollout/create" in line for line in lines) == 3
    assert any("deactivate" in line for line in lines)
    assert any("/health" in line for line in lines)
    (tmp_path / "firmware.bin").write_bytes(images.real_or_made())
    rollout_id = None
    for line in lines:
        line = line.replace("server:8080", "127.0.0.1:%d" % service.port)
        line = line.replace("{rollout_id}", str(rollout_id))
        done = subprocess.run(["bash", "-c", line + " --silent --show-error --fail-with-body"],
                              cwd=tmp_path, capture_output=True, text=True, timeout=60,
                              env={"PATH": os.environ["PATH"], "OTA_API_KEY": service.key})
        assert done.returncode == 0, line + "\n" + done.stdout + done.stderr
        answer = json.loads(done.stdout)
        assert answer["status"] in ("ok", "healthy")
        rollout_id = answer.get("rollout_id", rollout_id)

    # And they did what they say: the device that was named is offered the version.
    offer = service.check("esp32_001", "1.1.0")
    assert offer["update_available"] and offer["latest_version"] == "1.2.0"
    states = {r["name"]: r["is_active"] for r in service.list("rollouts")}
    assert states == {"v1.2.0-test": True, "v1.2.0-canary": True, "v1.2.0-prod": False}


def on_postgresql(test):
    """The queries are PostgreSQL's: with another store there is no such test."""
    return test if STORE == "postgresql" else None


@on_postgresql
@pytest.mark.parametrize("text", [t for _, t in seeds()], ids=[n for n, _ in seeds()])
def test_every_query_finds_rows_as_written(service, text):
    service.check("esp32_001", "1.1.0")
    service.report("esp32_001", "1.2.0", "success")
    queries = sql_queries(text)
    assert len(queries) == 4
    for query in queries:
        assert postgres.cluster().psql(query, service.schema), query
