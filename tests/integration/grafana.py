# SPDX-License-Identifier: MIT
"""What the dashboards and alert rules of deploy/grafana ask."""
import json
import os
import re

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(ROOT, "deploy", "grafana")
DASHBOARDS = os.path.join(FOLDER, "dashboards")


def dashboards():
    for name in sorted(os.listdir(DASHBOARDS)):
        with open(os.path.join(DASHBOARDS, name), encoding="utf-8") as f:
            yield name, json.load(f)


def rules():
    with open(os.path.join(FOLDER, "provisioning", "alerting", "paku.yaml"), encoding="utf-8") as f:
        return yaml.safe_load(f)["groups"][0]["rules"]


def spelled_out(text, rollout=1):
    """Grafana's macros, as it would put a day in ten-minute steps."""
    text = re.sub(r"\$__timeGroupAlias\((\w+), *\$__interval\)",
                  r"to_timestamp(floor(extract(epoch FROM \1) / 600) * 600) AS time", text)
    text = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '1 day' AND now()", text)
    assert "$__" not in text, text
    return text.replace("$rollout", str(rollout))
