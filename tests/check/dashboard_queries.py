#!/usr/bin/env python3
"""Writes every query of the dashboards as a recording rule, for `promtool check rules` to parse; and checks their form.

    tests/check/dashboard_queries.py RULES.yaml [FOLDER]    FOLDER: deploy/grafana

Prints what is wrong with panels and variables: ids and places that are there twice, places beyond the grid, queries without
an own letter, variables that a query names and nobody declares. Exit 1 when anything is.
"""
import glob
import json
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
COLUMNS = 24
BUILT_IN = {"__rate_interval": "5m", "__range": "1h", "__interval": "1m"}


def plain(expression):
    """Without Grafana's variables: those of time become durations, others a value."""
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda match: BUILT_IN.get(match.group(1), "x"), expression)


def findings_of(board):
    declared = {one["name"] for one in board["templating"]["list"]} | set(BUILT_IN)
    cells, ids = {}, set()
    for panel in board["panels"]:
        title = panel["title"]
        if panel["id"] in ids:
            yield f"{title}: id {panel['id']} is there twice"
        ids.add(panel["id"])
        at = panel["gridPos"]
        if at["x"] < 0 or at["w"] < 1 or at["h"] < 1 or at["x"] + at["w"] > COLUMNS:
            yield f"{title}: does not fit the grid: {at}"
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                if (x, y) in cells:
                    yield f"{title}: lies on {cells[(x, y)]}"
                cells[(x, y)] = title
        letters = [target["refId"] for target in panel["targets"]]
        if not letters or len(set(letters)) != len(letters):
            yield f"{title}: queries {letters}"
        text = json.dumps(panel)
        for name in re.findall(r"\$\{?(\w+)", text):
            if name not in declared:
                yield f"{title}: nobody declares ${name}"


def main():
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "deploy/grafana")
    rules, wrong, uids = [], set(), set()
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path, encoding="utf-8") as file:
            board = json.load(file)
        name = os.path.basename(path)
        wrong |= {f"{name}: {one}" for one in findings_of(board)}
        if board["uid"] in uids:
            wrong.add(f"{name}: uid {board['uid']} is another dashboard's")
        uids.add(board["uid"])
        for panel in board["panels"]:
            for target in panel["targets"]:
                # Numbered, so that no two rules are the same.
                rules.append({"record": f"checked:{len(rules)}", "expr": plain(target["expr"])})
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump({"groups": [{"name": "dashboards", "rules": rules}]}, file)
    for one in sorted(wrong):
        print(one)
    print(f"{len(rules)} queries")
    return 1 if wrong or len(rules) < 50 else 0


if __name__ == "__main__":
    sys.exit(main())
