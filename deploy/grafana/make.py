#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes the dashboards in deploy/grafana/dashboards: what Grafana loads is long, what is ours in it is here.

Questions go to PostgreSQL (what devices are and did) or Prometheus (rates and latencies of the service); a test asks
each of them of a database with 1,000,000 attempts.
"""
import json
import os

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dashboards")
SQL = {"type": "postgres", "uid": "paku-postgres"}
PROM = {"type": "prometheus", "uid": "paku-prometheus"}
DONE = "status IN ('success','failed','rolled_back') AND unsolicited = 0"


def sql(text, form="table"):
    return [{"refId": "A", "datasource": SQL, "format": form, "rawQuery": True, "rawSql": text,
             "editorMode": "code"}]


def prom(*pairs):
    return [{"refId": chr(65 + i), "datasource": PROM, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(pairs)]


def panel(title, kind, targets, unit="short", w=12, h=8, about="", options=None, custom=None):
    return {"title": title, "type": kind, "targets": targets, "w": w, "h": h, "description": about,
            "datasource": targets[0]["datasource"], "options": options or {},
            "fieldConfig": {"defaults": {"unit": unit, "custom": custom or {}}, "overrides": []}}


def stacked(title, text, about="", unit="short", w=12):
    return panel(title, "timeseries", sql(text, "time_series"), unit, w, about=about,
                 custom={"fillOpacity": 40, "stacking": {"mode": "normal"}})


FLEET = ("paku-fleet", "Paku OTA: fleet", [], [
    panel("Devices", "stat", sql("SELECT count(*) AS devices FROM devices"), w=4, h=4),
    panel("Heard of in 24 h", "stat", sql(
        "SELECT count(*) AS seen FROM devices WHERE last_seen > now() - interval '24 hours'"), w=4, h=4),
    panel("Online", "stat", sql("SELECT count(*) AS online FROM devices WHERE online = 1"), w=4, h=4,
          about="By the broker's word"),
    panel("Updates under way", "stat", sql(
        "SELECT count(*) AS open FROM device_update_status WHERE completed_at IS NULL AND unsolicited = 0"),
        w=4, h=4),
    panel("Failed, of those that ended in 24 h", "stat", sql(
        "SELECT count(*) FILTER (WHERE status <> 'success')::float / greatest(count(*), 1) AS failed "
        "FROM device_update_status WHERE reported_at > now() - interval '24 hours' AND " + DONE),
        "percentunit", w=4, h=4),
    panel("Open alerts", "stat", sql("SELECT count(*) AS open FROM ota_alerts WHERE cleared_at IS NULL"), w=4, h=4),
    panel("Devices by firmware version", "piechart", sql(
        "SELECT current_firmware_version AS version, count(*) AS devices FROM devices "
        "GROUP BY 1 ORDER BY 2 DESC LIMIT 20"), about="The seed's first question",
        options={"reduceOptions": {"values": True}, "legend": {"displayMode": "table", "values": ["value"]}}),
    panel("Devices by model", "bargauge", sql(
        "SELECT device_model AS model, count(*) AS devices FROM devices GROUP BY 1 ORDER BY 2 DESC LIMIT 20"),
        options={"reduceOptions": {"values": True}, "orientation": "horizontal"}),
    stacked("Updates that ended", "SELECT $__timeGroupAlias(reported_at, $__interval), status AS metric, count(*) AS updates "
            "FROM device_update_status WHERE $__timeFilter(reported_at) AND " + DONE + " GROUP BY 1, 2 ORDER BY 1",
            "Each attempt where it was last heard of"),
    stacked("Versions that devices went to", "SELECT $__timeGroupAlias(reported_at, $__interval), firmware_version AS metric, "
            "count(*) AS devices FROM device_update_status WHERE $__timeFilter(reported_at) AND status = 'success' "
            "GROUP BY 1, 2 ORDER BY 1", "Success by version over time"),
    panel("Not heard of for the longest time", "table", sql(
        "SELECT device_id, device_model, current_firmware_version, last_seen FROM devices "
        "ORDER BY last_seen, id LIMIT 50")),
    panel("Alerts", "table", sql(
        "SELECT raised_at, severity, kind, subject, sentence, acknowledged_by FROM ota_alerts "
        "WHERE cleared_at IS NULL ORDER BY id DESC LIMIT 50")),
])

OF = "rollout_id = $rollout"
ROLLOUT = ("paku-rollout", "Paku OTA: rollout", [{
    "name": "rollout", "label": "Rollout", "type": "query", "datasource": SQL, "refresh": 1,
    "query": "SELECT name AS __text, id::text AS __value FROM rollout_configurations ORDER BY id DESC LIMIT 200"}], [
    panel("State", "stat", sql(
        "SELECT state || ', stage ' || stage || ' of ' || jsonb_array_length(stages) FROM rollout_configurations "
        "WHERE id = $rollout"), w=8, h=4, options={"reduceOptions": {"fields": "/.*/"}, "textMode": "value"}),
    panel("Why", "stat", sql("SELECT coalesce(state_reason, '') FROM rollout_configurations WHERE id = $rollout"), w=16, h=4,
          options={"reduceOptions": {"fields": "/.*/"}, "textMode": "value"}),
    panel("Attempts by status", "bargauge", sql(
        "SELECT coalesce(closed, status) AS status, count(*) AS attempts FROM device_update_status WHERE " + OF +
        " GROUP BY 1 ORDER BY 2 DESC"), options={"reduceOptions": {"values": True}, "orientation": "horizontal"}),
    panel("Evidence", "timeseries", prom(
        ('paku_ota_rollout_evidence{rollout="$rollout"}', "likelier that it is bad"),
        ('paku_ota_rollout_halts_at{rollout="$rollout"}', "halts at")),
        about="How many times likelier what was seen is, if the release is bad",
        custom={"scaleDistribution": {"type": "log", "log": 10}}),
    panel("Exposure", "timeseries", prom(
        ('paku_ota_rollout_unresolved{rollout="$rollout"}', "not known yet"),
        ('paku_ota_rollout_bound{rollout="$rollout"}', "as many may be"),
        ('paku_ota_rollout_proven{rollout="$rollout"}', "proven"),
        ('paku_ota_rollout_failed{rollout="$rollout"}', "failed"))),
    stacked("Outcomes over time", "SELECT $__timeGroupAlias(reported_at, $__interval), status AS metric, count(*) AS updates "
            "FROM device_update_status WHERE $__timeFilter(reported_at) AND " + OF + " AND " + DONE +
            " GROUP BY 1, 2 ORDER BY 1"),
    panel("Failures by what devices said", "table", sql(
        "SELECT error_message AS said, count(*) AS devices FROM device_update_status WHERE " + OF +
        " AND status IN ('failed','rolled_back') GROUP BY 1 ORDER BY 2 DESC LIMIT 20")),
    panel("Slowest updates", "table", sql(
        "SELECT device_id, from_version, status, extract(epoch FROM completed_at - started_at) AS seconds "
        "FROM device_update_status WHERE " + OF + " AND status = 'success' AND started_at IS NOT NULL "
        "ORDER BY 4 DESC NULLS LAST LIMIT 20"), "s"),
    panel("What happened", "table", sql(
        "SELECT created_at, event_type, coalesce(created_by, '') AS who, event_data->>'reason' AS why FROM ota_events "
        "WHERE rollout_id = $rollout AND created_by IS NOT NULL ORDER BY id DESC LIMIT 50"), w=24),
])

SERVICE = ("paku-service", "Paku OTA: service", [], [
    panel("Answers", "timeseries", prom(
        ("sum by (route) (rate(paku_ota_http_answers_total[$__rate_interval]))", "{{route}}")), "reqps"),
    panel("Errors", "timeseries", prom(
        ('sum by (code) (rate(paku_ota_http_answers_total{code=~"[45].."}[$__rate_interval]))', "{{code}}")), "reqps"),
    panel("Time of an answer", "timeseries", prom(*[
        ("histogram_quantile(%s, sum by (le) (rate(paku_ota_http_answer_seconds_bucket"
         "{route!~\".*download.*\"}[$__rate_interval])))" % q, "p" + q[2:]) for q in ("0.50", "0.99")]), "s",
        about="Without downloads, which take as long as the network"),
    panel("Time of a transaction", "timeseries", prom(*[
        ("histogram_quantile(%s, sum by (le) (rate(paku_ota_commit_seconds_bucket[$__rate_interval])))" % q, "p" + q[2:])
        for q in ("0.50", "0.99")]), "s"),
    panel("Waiting", "timeseries", prom(("paku_ota_commit_queue_length", "for the store"),
                                        ("paku_ota_mqtt_waiting", "to be told"), ("paku_ota_devices_busy", "busy devices"))),
    panel("MQTT", "timeseries", prom(
        ("rate(paku_ota_mqtt_messages_total[$__rate_interval])", "messages in"),
        ("rate(paku_ota_mqtt_commands_total[$__rate_interval])", "commands out"),
        ("sum(rate(paku_ota_mqtt_rejected_total[$__rate_interval]))", "not understood")), "cps"),
    panel("Downloads", "timeseries", prom(
        ("rate(paku_ota_download_bytes_total[$__rate_interval])", "bytes")), "Bps"),
    panel("Connections", "timeseries", prom(("paku_ota_http_connections", "open"), ("paku_ota_downloads_active", "downloading"))),
])


def dashboard(uid, title, variables, panels):
    x = y = row = 0
    for i, p in enumerate(panels):
        w, h = p.pop("w"), p.pop("h")
        if x + w > 24:
            x, y, row = 0, y + row, 0
        p["id"], p["gridPos"] = i + 1, {"x": x, "y": y, "w": w, "h": h}
        x, row = x + w, max(row, h)
    return {"uid": uid, "title": title, "tags": ["paku-ota"], "timezone": "browser", "schemaVersion": 39,
            "refresh": "30s", "time": {"from": "now-24h", "to": "now"}, "templating": {"list": variables},
            "panels": panels}


def main():
    for uid, title, variables, panels in (FLEET, ROLLOUT, SERVICE):
        with open(os.path.join(FOLDER, uid + ".json"), "w", encoding="utf-8") as f:
            json.dump(dashboard(uid, title, variables, panels), f, indent=1, ensure_ascii=False)
            f.write("\n")


if __name__ == "__main__":
    main()
