#!/usr/bin/env python3
"""Writes the Grafana dashboards beside this file from the panels listed in it.

    dashboards/generate.py            writes the JSON files
    dashboards/generate.py --check    exits 1 if a JSON file is not what this writes

Each panel is one line of layout and its queries. The queries answer on a Prometheus
that has scraped nodemend once: nothing waits for a second sample, and what nobody has
counted yet is 0. Of Grafana's own variables they use only $__interval and
$__rate_interval.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # of Grafana's grid


# ---- queries


def led(metric):
    """Only what the leader says: a replica that led before may still show its last numbers."""
    return f"({metric} and on (job, instance) (nodemend_leader == 1))"


def counted(metric, by):
    """How much a counter grew within a step. `increase` alone overlooks the event that made
    the series, and for repairs that is often the only one. The price: after a gap of the
    scrapes that is longer than a step, the whole count shows once more."""
    grown = f"(({metric} unless {metric} offset $__interval) or increase({metric}[$__interval]))"
    return f"sum by ({by}) {grown} or on () vector(0)"


def rate(metric, by):
    """Events per second."""
    return f"sum by ({by}) (rate({metric}[$__rate_interval])) or on () vector(0)"


def quantile(share, buckets, by="le"):
    """Over everything since the replicas started: repairs are too rare for a window."""
    return f"histogram_quantile({share}, sum by ({by}) ({buckets})) >= 0"


FINISHED = 'nodemend_repair_info{phase=~"Succeeded|Aborted|NeedsHuman|Escalated"}'
SUCCEEDED = 'nodemend_repair_info{phase="Succeeded"}'
NEEDS_HUMAN = 'nodemend_repair_info{phase="NeedsHuman"}'
REPAIR_COLUMNS = "started, ended, node, fault, action, phase, policy, strategy, repair, trace_id"
REPAIR_DURATION = 'nodemend_repair_duration_seconds_bucket{outcome="Succeeded"}'
STEP_DURATION = "nodemend_repair_step_duration_seconds"


# ---- panels


def target(expr, legend="", **more):
    return {"datasource": DATASOURCE, "expr": expr, "legendFormat": legend or "__auto", **more}


def panel(kind, title, description, width, height, targets, defaults=None, options=None, **more):
    for index, query in enumerate(targets):
        query["refId"] = chr(ord("A") + index)
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "targets": targets,
        "fieldConfig": {"defaults": defaults or {}, "overrides": []},
        "options": options or {},
        **more,
    }


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": 0}}


def steps(*colours):
    """Thresholds: the first colour from the bottom up, the others from their value."""
    first, *others = colours
    listed = [{"color": first, "value": None}] + [{"color": c, "value": v} for c, v in others]
    return {"mode": "absolute", "steps": listed}


def stat(title, description, expr, colours, unit="short", legend="", mappings=()):
    defaults = {"unit": unit, "thresholds": steps(*colours), "color": {"mode": "thresholds"},
                "mappings": list(mappings)}
    options = {"colorMode": "value", "graphMode": "none", "justifyMode": "auto",
               "textMode": "value_and_name" if legend else "auto",
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return panel("stat", title, description, 4, 4, [target(expr, legend)], defaults, options)


def series(title, description, targets, width=12, unit="short", draw="line", stack=False, interval=None):
    custom = {"drawStyle": draw, "lineInterpolation": "stepAfter", "lineWidth": 1,
              "fillOpacity": 80 if draw == "bars" else 20 if stack else 0, "showPoints": "auto",
              "spanNulls": False, "stacking": {"mode": "normal" if stack else "none", "group": "A"}}
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}, "custom": custom}
    options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    more = {"interval": interval} if interval else {}
    return panel("timeseries", title, description, width, 8, targets, defaults, options, **more)


def bars(title, description, targets, unit="s"):
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}}
    options = {"displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "showUnfilled": True,
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    for query in targets:
        query["instant"] = True
        query["range"] = False
    return panel("bargauge", title, description, 12, 8, targets, defaults, options)


def repairs_table():
    columns = REPAIR_COLUMNS.split(", ")
    query = target(f"max by ({REPAIR_COLUMNS}) {led('nodemend_repair_info')}",
                   instant=True, range=False, format="table")
    table = panel(
        "table", "Newest repairs", "At most 100. A trace shows every step of a repair, and what it rested on.",
        WIDTH, 10, [query], {"custom": {"align": "auto", "filterable": True}},
        {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": "Started", "desc": True}]},
        transformations=[{"id": "organize", "options": {
            "excludeByName": {"Time": True, "Value": True},
            "indexByName": {name: index for index, name in enumerate(columns)},
            "renameByName": {name: name.capitalize() for name in columns if name != "trace_id"} | {"trace_id": "Trace"},
        }}])
    colours = {"Succeeded": "green", "Aborted": "blue", "NeedsHuman": "red", "Escalated": "orange"}
    mapping = {phase: {"color": colour, "index": index} for index, (phase, colour) in enumerate(colours.items())}
    table["fieldConfig"]["overrides"] = [
        override("Trace", "links", [{"title": "Open the trace", "url": "${trace_url:raw}${__value.raw}",
                                     "targetBlank": True}]),
        override("Phase", "mappings", [{"type": "value", "options": mapping}],
                 "custom.cellOptions", {"type": "color-text"}),
    ]
    return table


def override(field, *pairs):
    properties = [{"id": key, "value": value} for key, value in zip(pairs[::2], pairs[1::2])]
    return {"matcher": {"id": "byName", "options": field}, "properties": properties}


REPAIR_HISTORY = [
    stat("Open repairs", "Repairs under way.",
         f"sum {led('nodemend_repairs_open')} or vector(0)", ["text", ("blue", 1)]),
    stat("Succeeded", "Share of the newest 100 repairs that ended with a well or a new node in service.",
         f"(count {led(SUCCEEDED)} or vector(0)) / count {led(FINISHED)}",
         ["red", ("orange", 0.8), ("green", 0.95)], unit="percentunit"),
    stat("Needs a person", "Of the newest 100 repairs. The node stays cordoned until someone looks.",
         f"count {led(NEEDS_HUMAN)} or vector(0)", ["green", ("red", 1)]),
    stat("Held nodes", "Would be repaired, but a guard says no.",
         "sum " + led('nodemend_nodes{verdict="Held"}') + " or vector(0)", ["green", ("orange", 1)]),
    stat("Sources", "Whether nodemend's sources answer. While one does not, no repair starts that rests on it.",
         f"min by (source) {led('nodemend_source_up')}", ["red", ("green", 1)], legend="{{source}}",
         mappings=[{"type": "value", "options": {"0": {"text": "down"}, "1": {"text": "up"}}}]),
    stat("Leaders", "Replicas that lead. Always one, but for the seconds of a change.",
         "sum(nodemend_leader)", ["red", ("green", 1), ("red", 2)]),

    row("Repairs"),
    series("Repairs by outcome", "Repairs that ended, and repairs that began.", [
        target(counted("nodemend_repairs_finished_total", "outcome"), "{{outcome}}"),
        target(counted("nodemend_repairs_started_total", "action"), "started, {{action}}"),
    ], draw="bars", interval="5m"),
    series("Open repairs by phase", "Where the repairs under way are.", [
        target(f"sum by (phase) {led('nodemend_repairs_open')} or on () vector(0)", "{{phase}}"),
    ], stack=True),
    repairs_table(),
    series("Duration of successful repairs", "From admission to verified, since the replicas started.", [
        target(quantile(0.5, REPAIR_DURATION), "p50"),
        target(quantile(0.9, REPAIR_DURATION), "p90"),
    ], unit="s"),
    bars("Duration of steps", "Since the replicas started.", [
        target(f"sum by (step) ({STEP_DURATION}_sum) / (sum by (step) ({STEP_DURATION}_count) > 0)", "{{step}}, mean"),
        target(quantile(0.9, f"{STEP_DURATION}_bucket", "step, le"), "{{step}}, p90"),
    ]),

    row("Decisions"),
    series("Nodes by verdict", "What nodemend says of every node now.", [
        target(f"sum by (verdict) {led('nodemend_nodes')}", "{{verdict}}"),
    ], width=8, stack=True),
    series("Held nodes by reason", "Why nothing is done. A node can have several reasons.", [
        target(f"sum by (reason) {led('nodemend_held_nodes')} > 0 or on () vector(0)", "{{reason}}"),
    ], width=8),
    series("Decisions", "Verdicts that changed, by what they became.", [
        target(counted("nodemend_decisions_total", "verdict"), "{{verdict}}"),
    ], width=8, draw="bars", stack=True, interval="5m"),

    row("Inputs"),
    series("Rule evaluations", "Per second. An error makes the rule's signal unknown.", [
        target('sum(rate(nodemend_rule_evaluations_total{result="Ok"}[$__rate_interval])) or vector(0)', "answered"),
        target('sum(rate(nodemend_rule_evaluations_total{result="Error"}[$__rate_interval])) or vector(0)', "errors"),
    ], width=8, unit="ops"),
    series("Webhook requests", "Per second, by answer. Alertmanager repeats what was not answered with 2xx.", [
        target(rate("nodemend_webhook_requests_total", "code, reason"), "{{code}} {{reason}}"),
    ], width=8, unit="reqps"),
    series("Signals without a node", "Series and alerts that name no node, or more than one. They never lead to a repair.", [
        target(counted("nodemend_unresolved_signals_total", "source, reason"), "{{source}}, {{reason}}"),
    ], width=8, draw="bars", stack=True, interval="5m"),
]


# ---- dashboards


def laid_out(panels):
    """Gives the panels their ids and places them from left to right, line by line."""
    x = y = height = 0
    for index, item in enumerate(panels, start=1):
        place = item["gridPos"]
        if x + place["w"] > WIDTH:
            x, y, height = 0, y + height, 0
        place["x"], place["y"] = x, y
        x, height = x + place["w"], max(height, place["h"])
        item["id"] = index
    return panels


def dashboard(uid, title, description, panels):
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0,
         "refresh": 1, "regex": "", "multi": False, "includeAll": False, "options": []},
        {"name": "trace_url", "label": "Traces", "type": "textbox", "hide": 0,
         "description": "Where traces are shown; the trace id is put behind it.",
         "query": "http://localhost:16686/trace/",
         "current": {"text": "http://localhost:16686/trace/", "value": "http://localhost:16686/trace/"},
         "options": []},
    ]
    return {
        "uid": uid, "title": title, "description": description, "tags": ["nodemend"], "schemaVersion": 41,
        "version": 1, "editable": True, "graphTooltip": 1, "timezone": "browser", "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"}, "fiscalYearStartMonth": 0, "links": [],
        "annotations": {"list": []}, "templating": {"list": variables}, "panels": laid_out(panels),
    }


DASHBOARDS = {
    "repair-history.json": dashboard(
        "nodemend-repair-history", "nodemend / Repair history",
        "Which nodes nodemend repaired, how long it took, and why it left others alone.", REPAIR_HISTORY),
}


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for name, content in DASHBOARDS.items():
        path, text = HERE / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        if not arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    for name in stale:
        print(f"dashboards/{name} is not what dashboards/generate.py writes; run it", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
