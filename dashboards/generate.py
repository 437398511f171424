#!/usr/bin/env python3
"""Writes the Grafana dashboards next to this file: `generate.py`, or `generate.py
--check` to see whether they are up to date (exit code 1 if not).

Rules for queries: a counter starts at its first event, so `grown` counts a series that
is new in the window from zero, which `increase` does not; and what may have no series
yet falls back to 0, so that a panel without events says 0 and not "No data".
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
LIGHTS = {
    "Succeeded": "green", "Ok": "green", "Healthy": "green",
    "Aborted": "blue", "Repairing": "blue", "Pending": "yellow", "Held": "orange",
    "Due": "purple", "Unknown": "super-light-yellow", "Ignored": "text",
    "NeedsHuman": "red", "Error": "red",
}


def grown(series, window):
    """How much each series of a counter grew in the window."""
    return f"(({series} unless {series} offset {window}) or increase({series}[{window}]))"


def by(label, expression):
    """The sum per value of a label, or one 0 if there is nothing yet."""
    return f"sum by ({label}) ({expression}) or on() vector(0)"


def total(expression):
    """The sum, or 0 if there is nothing yet."""
    return f"sum({expression}) or vector(0)"


def quantile(share, label, histogram, window):
    """A quantile of a histogram's observations within the window."""
    labels = f"le, {label}" if label else "le"
    return f"histogram_quantile({share}, sum by ({labels}) {grown(histogram + '_bucket', window)})"


class Dashboard:
    """Places panels from left to right, in rows of 24 columns."""

    def __init__(self, uid, title, description):
        self.head = {"uid": uid, "title": title, "description": description}
        self.panels, self.x, self.y, self.height = [], 0, 0, 0

    def row(self, title):
        self._end_line()
        self._place({"type": "row", "title": title, "collapsed": False, "panels": []}, 24, 1)

    def panel(self, kind, title, description, queries, width, height=8, unit="short", **more):
        instant = more.pop("instant", False)
        options = more.pop("options", {})
        defaults = {"unit": unit, "decimals": more.pop("decimals", None), "noValue": more.pop("no_value", "0"),
                    "min": 0, "custom": more.pop("custom", {})}
        defaults.update(more.pop("defaults", {}))
        targets = [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend,
             "instant": instant, "range": not instant, **more.get("target", {})}
            for index, (legend, expression) in enumerate(queries)
        ]
        more.pop("target", None)
        overrides = more.pop("overrides", [])
        self._place({
            "type": kind, "title": title, "description": description, "datasource": SOURCE, "targets": targets,
            "fieldConfig": {"defaults": {key: value for key, value in defaults.items() if value is not None},
                            "overrides": overrides},
            "options": options, **more,
        }, width, height)

    def stat(self, title, description, expression, **more):
        defaults = more.pop("defaults", {})
        self.panel("stat", title, description, [(title, expression)], 4, 4, instant=True, defaults=defaults,
                   options={"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"},
                   **more)

    def graph(self, title, description, queries, width=12, stacked=False, bars=False, **more):
        custom = {"drawStyle": "bars" if bars else "line", "fillOpacity": 60 if bars else 10, "showPoints": "auto"}
        if stacked:
            custom["stacking"] = {"mode": "normal"}
        overrides = [
            {"matcher": {"id": "byName", "options": name},
             "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
            for name, colour in LIGHTS.items()
        ]
        self.panel("timeseries", title, description, queries, width, custom=custom, overrides=overrides,
                   options={"legend": {"displayMode": "list", "placement": "bottom"},
                            "tooltip": {"mode": "multi", "sort": "desc"}}, **more)

    def _place(self, panel, width, height):
        if self.x + width > 24:
            self._end_line()
        panel["id"] = len(self.panels) + 1
        panel["gridPos"] = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.panels.append(panel)
        self.x, self.height = self.x + width, max(self.height, height)

    def _end_line(self):
        self.x, self.y, self.height = 0, self.y + self.height, 0

    def document(self):
        variables = [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            {"name": "traces", "label": "Link to a trace, without its id", "type": "textbox",
             "query": "http://localhost:16686/trace/",
             "current": {"text": "http://localhost:16686/trace/", "value": "http://localhost:16686/trace/"}},
        ]
        return {**self.head, "tags": ["nodemend"], "schemaVersion": 39, "version": 1, "editable": True,
                "graphTooltip": 1, "refresh": "1m", "time": {"from": "now-7d", "to": "now"}, "timezone": "browser",
                "templating": {"list": variables}, "annotations": {"list": []}, "panels": self.panels}


REPAIR_LABELS = ["started", "node", "policy", "fault", "phase", "strategy", "ended", "trace_id", "repair"]


def newest_repairs(board):
    """The table: one line per repair, the newest first."""
    colours = {name: {"color": LIGHTS[name], "index": index}
               for index, name in enumerate(["Succeeded", "Aborted", "NeedsHuman"])}
    board.panel(
        "table", "Newest repairs", "The newest 100. A trace id opens the repair's trace.",
        [("", f"max by ({', '.join(REPAIR_LABELS)}) (nodemend_repair_info) * 1000")], 24, 11,
        instant=True, target={"format": "table"}, no_value="no repairs yet",
        overrides=[
            {"matcher": {"id": "byName", "options": "phase"}, "properties": [
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
                {"id": "mappings", "value": [{"type": "value", "options": colours}]}]},
            {"matcher": {"id": "byName", "options": "trace"}, "properties": [
                {"id": "links", "value": [{"title": "Open the trace", "url": "${traces}${__value.text}",
                                           "targetBlank": True}]}]},
            {"matcher": {"id": "byName", "options": "age"}, "properties": [
                {"id": "unit", "value": "dateTimeFromNow"}]},
        ],
        transformations=[
            {"id": "organize", "options": {
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(["Value"] + REPAIR_LABELS)},
                "renameByName": {"Value": "age", "trace_id": "trace"}}},
            {"id": "sortBy", "options": {"sort": [{"field": "age", "desc": True}]}},
        ],
        options={"showHeader": True},
    )


def repairs(board):
    finished = "nodemend_repairs_finished_total"
    done = grown(finished + '{outcome="Succeeded"}', "$__range")
    judged = grown(finished + '{outcome!="Aborted"}', "$__range")
    red = {"color": {"mode": "thresholds"},
           "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": 1}]}}
    board.row("Repairs")
    board.stat("Succeeded", "In the time shown.", total(done), decimals=0)
    board.stat("Need a person", "In the time shown. Such a node stays cordoned until someone decides.",
               total(grown(finished + '{outcome="NeedsHuman"}', "$__range")), decimals=0, defaults=red)
    board.stat("Success ratio", "Of the repairs that ran to their end. Aborted ones do not count: the node recovered, "
               "or someone said no.", f"({total(done)}) / (sum({judged}) > 0)",
               unit="percentunit", no_value="no repairs yet", defaults={"max": 1})
    board.stat("Open", "Repairs under way now.", total("nodemend_repairs_open"))
    board.stat("Nodes held", "Would be repaired, but a guard says no.",
               'sum(max by (verdict) (nodemend_nodes{verdict="Held"})) or vector(0)')
    board.stat("Leaders", "One acts. 0 for more than a few seconds, or 2, is wrong.", total("nodemend_leader"))
    newest_repairs(board)
    board.graph("Outcomes per hour", "Repairs that ended within the hour before, by outcome.",
                [("{{outcome}}", by("outcome", grown(finished, "1h")))], stacked=True, bars=True)
    board.graph("Open repairs by phase", "Where the repairs under way are.",
                [("{{phase}}", "max by (phase) (nodemend_repairs_open) or on() vector(0)")], stacked=True)
    duration = "nodemend_repair_duration_seconds"
    board.graph("Duration of repairs", "From start to end, over the time shown.",
                [(f"p{round(share * 100)} {{{{outcome}}}}", quantile(share, "outcome", duration, "$__range"))
                 for share in (0.5, 0.9)], unit="s", no_value="no repairs yet")
    steps = "nodemend_repair_step_duration_seconds"
    board.panel("bargauge", "Duration of steps", "The median and the slowest tenth of each step, over the time shown.",
                [(f"{{{{step}}}} p{round(share * 100)}", quantile(share, "step", steps, "$__range"))
                 for share in (0.5, 0.9)], 12, unit="s", instant=True, no_value="no repairs yet",
                options={"orientation": "horizontal", "displayMode": "basic",
                         "reduceOptions": {"calcs": ["lastNotNull"]}})


def decisions(board):
    board.row("Decisions")
    board.graph("Nodes by verdict", "What nodemend says of each node now. Healthy ones are left out.",
                [("{{verdict}}", 'max by (verdict) (nodemend_nodes{verdict!="Healthy"}) or on() vector(0)')],
                stacked=True)
    board.graph("Held nodes by reason", "Why nodes that would be repaired are not. A node can have several reasons.",
                [("{{reason}}", "max by (reason) (nodemend_held_nodes) or on() vector(0)")])
    board.graph("Decisions per hour", "Changes of a node's verdict within the hour before.",
                [("{{verdict}}", by("verdict", grown("nodemend_decisions_total", "1h")))], stacked=True, bars=True)
    board.graph("Signals without a node", "Alerts and series of the hour before whose node is unknown, ambiguous or "
                "contradictory. They lead to nothing.",
                [("{{source}} {{reason}}",
                  by("source, reason", grown("nodemend_unresolved_signals_total", "1h")))])


def sources(board):
    board.row("Sources")
    board.graph("Sources up", "1: answers. A source that is down makes its signals unknown and holds their nodes.",
                [("{{source}}", "max by (source) (nodemend_source_up) or on() vector(0)")], width=8,
                defaults={"max": 1})
    board.graph("Rule evaluations per second", "Errors make a rule's signals unknown.",
                [("{{result}}", by("result", "rate(nodemend_rule_evaluations_total[$__rate_interval])"))], width=8,
                unit="ops")
    board.graph("Webhook requests per hour", "What Alertmanager sent within the hour before, by status code.",
                [("{{code}} {{reason}}", by("code, reason", grown("nodemend_webhook_requests_total", "1h")))], width=8)
    board.graph("Calls that failed per hour", "To Kubernetes, EC2 and Prometheus, within the hour before.",
                [("{{system}} {{result}}", by("system, result", grown(
                    'nodemend_external_calls_total{result!="Ok"}', "1h")))])
    board.graph("Spans dropped per hour", "Traces that are incomplete. The records in the cluster are whole.",
                [("dropped", total(grown("nodemend_spans_dropped_total", "1h")))])


def repair_history():
    board = Dashboard("nodemend-repair-history", "nodemend / Repair history",
                      "Which nodes were repaired, how it went, and why others were not.")
    for part in (repairs, decisions, sources):
        part(board)
    return board.document()


DASHBOARDS = {"repair-history.json": repair_history}


def main(arguments):
    if arguments not in ([], ["--check"]):
        print("usage: generate.py [--check]", file=sys.stderr)
        return 2
    stale = 0
    for name, build in DASHBOARDS.items():
        path, text = HERE / name, json.dumps(build(), indent=2) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments:
            print(f"{name} is not what generate.py writes: run dashboards/generate.py", file=sys.stderr)
            stale = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
