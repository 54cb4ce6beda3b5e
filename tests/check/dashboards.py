#!/usr/bin/env python3
"""Checks that every metric and label that dashboards and rules ask for is in a live scrape.

    tests/check/dashboards.py SCRAPE [FOLDER]    SCRAPE: an answer of /metrics; FOLDER: deploy/

Labels of a family without a sample (nothing has happened yet) are looked up in docs/metrics.md. Prints what is missing;
exit 1 when anything is.
"""
import glob
import json
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
METRIC = re.compile(r"\b((?:tierlog|kappie)_\w+)\b(\{[^}]*\})?")
RECORDED = re.compile(r"\b(\w+:\w+:\w+)\b")


def scraped(path):
    labels, families = {}, set()
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("# TYPE "):
                families.add(line.split()[2])
            elif not line.startswith("#"):
                name = re.match(r"\w+", line).group(0)
                inside = line[line.find("{") + 1:line.rfind("}")]
                labels.setdefault(name, set()).update(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', inside))
    return families, labels


def documented():
    found = {}
    with open(os.path.join(ROOT, "docs/metrics.md"), encoding="utf-8") as file:
        for line in file:
            cells = line.split("|")
            if len(cells) > 5 and (name := re.match(r" `(\w+)` ", cells[1])):
                extra = set() if name.group(1).startswith("kappie_") else {"node", "cluster"}
                found[name.group(1)] = set(re.findall(r"`(\w+)`", cells[4])) | extra
    return found


def expressions(folder):
    for path in sorted(glob.glob(os.path.join(folder, "grafana/*.json"))):
        with open(path, encoding="utf-8") as file:
            made = json.load(file)
        for one in made["templating"]["list"]:
            if one["type"] == "query":
                yield path, one["query"]["query"]
        for panel in made["panels"]:
            for target in panel["targets"]:
                yield path, target["expr"]
    for path in sorted(glob.glob(os.path.join(folder, "prometheus/*.rules.yaml"))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        # An expression is one line, or folded over several that are indented deeper.
        for match in re.finditer(r"^( *)expr: (>-\n(?:\1  .*\n)+|.*\n)", text, re.M):
            yield path, match.group(2)


def labels_asked(expression):
    """Labels in selectors by metric, and in by (…) and label_values for all metrics of the expression."""
    for name, selector in METRIC.findall(expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', selector)))
    every = set()
    for group in re.findall(r"\bby\s*\(([^)]*)\)", expression):
        every |= {one.strip() for one in group.split(",")}
    if match := re.match(r"label_values\(.*,\s*(\w+)\)$", expression):
        every.add(match.group(1))
    for name, _ in METRIC.findall(re.sub(r"\bby\s*\([^)]*\)", "", expression)):
        yield name, every


def main():
    families, samples = scraped(sys.argv[1])
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "deploy")
    known, recorded, missing, checked = documented(), set(), set(), 0
    for path in glob.glob(os.path.join(folder, "prometheus/*.rules.yaml")):
        with open(path, encoding="utf-8") as file:
            recorded |= set(re.findall(r"record: (\S+)", file.read()))
    for path, expression in expressions(folder):
        for name in RECORDED.findall(expression):
            if name not in recorded:
                missing.add(f"{path}: no rule records {name}")
        for name, labels in labels_asked(RECORDED.sub("", expression)):
            checked += 1
            if name not in families:
                missing.add(f"{path}: {name} is in no scrape")
                continue
            for label in labels - samples.get(name, known.get(name, set())):
                missing.add(f"{path}: {name} has no label {label}")
    for line in sorted(missing):
        print(line)
    if checked < 100:
        print(f"only {checked} metrics in queries were found: they are read wrongly")
        return 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
