#!/usr/bin/env python3
"""Checks that every file keeps to its room: who may include whom, which foreign library stands where,
how long files and functions may be, and that the documents name files that exist.

    tests/check/layers.py [FOLDER]     FOLDER: the repository's root (default: the one this file is in)

Prints FILE:LINE: what is wrong; exit 1 when anything is. `layers_test.py` proves that it can find each.
"""
import os
import re
import subprocess
import sys

# Rooms, most special path first. A room may include itself, and the rooms or single headers listed here.
ROOMS = {
    "base": [],
    "http": ["base"],
    "policy": ["base"],
    "store": ["base", "policy"],
    "query": ["base", "policy", "store"],
    "api": ["base", "store", "query", "http"],
    "dataplane/nftables": ["base", "policy", "dataplane"],
    "dataplane/ebpf": ["base", "policy", "dataplane"],
    "dataplane": ["base", "policy"],
    # Of its neighbours only what carries data, never what reads a kernel or a file.
    "logger": ["base", "policy", "dataplane/events.h", "dataplane/backend.h", "dataplane/connection.h",
               "store/record.h", "store/catalog.h", "store/told.h", "store/flow_entry.h"],
    "exporters": ["base", "store"],
    "endpoints": ["base", "policy"],
    "cni": ["base", "endpoints"],
    "daemon": ["base", "http", "policy", "store", "query", "api", "dataplane/nftables", "dataplane/ebpf", "dataplane",
               "logger", "exporters", "endpoints"],
    # Policy test cases read verdicts of real packets back from the flow index; the lab itself does not.
    "lab/cases": ["base", "policy", "endpoints", "store", "logger", "dataplane/nftables", "dataplane/ebpf", "dataplane", "lab"],
    "lab": ["base", "policy", "endpoints"],
    "cli": ["base", "policy", "store", "query", "dataplane/nftables", "dataplane/ebpf", "dataplane", "logger", "exporters", "endpoints", "lab/cases",
            "lab"],
}
EVERYTHING = ["tests", "bench"]  # may include any room

# A foreign library's headers, and the only places that may include them.
FOREIGN = [
    (r"libnftnl/", ["dataplane/nftables/"]),
    (r"libmnl/", ["dataplane/", "lab/", "endpoints/", "exporters/prometheus/"]),
    (r"bpf/", ["dataplane/", "exporters/prometheus/"]),
    (r"microhttpd", ["http/"]),
    (r"sqlite3\.h", ["store/"]),
    (r"yaml-cpp/", ["base/yaml.cpp"]),
    (r"msgpack", ["exporters/fluentbit/"]),
    (r"openssl/", ["exporters/fluentbit/"]),
    (r"libdeflate\.h", ["exporters/fluentbit/"]),
    (r"spdlog/", ["daemon/", "cni/", "cli/"]),
    (r"CLI/", ["daemon/", "cli/"]),
]
NOWHERE = r"regex$"  # RE2 reads users' patterns in linear time
NOT_IN_HEADERS = r"(nlohmann/json\.hpp|CLI/|yaml-cpp/|msgpack|libnftnl/|iostream$)"

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 90
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)')


def files_of(root):
    try:
        listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"], check=True,
                                capture_output=True, text=True).stdout.split("\n")
        return sorted(name for name in listed if name and os.path.isfile(os.path.join(root, name)))
    except (OSError, subprocess.CalledProcessError):
        found = []
        for folder, folders, names in os.walk(root):
            folders[:] = [f for f in folders if f not in ("build", ".git", "node_modules")]
            found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
        return sorted(found)


def room_of(path):
    for room in sorted(ROOMS, key=len, reverse=True):
        if path.startswith(room + "/") or (room == "lab/cases" and path.startswith("lab/case")):
            return room
    return None


def check_edges(path, lines, known):
    room = room_of(path)
    if path.split("/")[0] in EVERYTHING or room is None:
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match or not match.group(1):
            continue
        target = match.group(1)
        if target.endswith(".skel.h"):  # made by the build from a program beside it
            continue
        if target not in known:
            yield number, f'"{target}" is no file of the project; include from the repository root'
        elif room_of(target) != room and target not in ROOMS[room] and room_of(target) not in ROOMS[room]:
            yield number, f'{room}/ may not include "{target}"; it may use {", ".join(ROOMS[room]) or "nothing of ours"}'


def check_foreign(path, lines):
    in_header = path.endswith(".h")
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match or not match.group(2):
            continue
        target = match.group(2)
        if re.match(NOWHERE, target):
            yield number, f"<{target}> may not be used; RE2 is the project's pattern library"
        if in_header and re.match(NOT_IN_HEADERS, target) and not path.startswith("tests/"):
            yield number, f"<{target}> may not be included by a header"
        for pattern, places in FOREIGN:
            if re.match(pattern, target) and not path.startswith(tuple(places + EVERYTHING)):
                yield number, f"<{target}> may only be included in {', '.join(places)}"


def blank_out(text):
    """The text with comments, strings and preprocessor lines replaced by spaces, line breaks kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:\\\n|[^\n])*',
                         re.S | re.M)
    digits = re.compile(r"(?<=\d)'(?=\d)")  # 1'000 opens no character
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), digits.sub("_", text))


def functions(text):
    """(first line, lines) of each function body, found by its braces."""
    text = blank_out(text)
    line, head_from, inside = 1, 0, 0
    scopes = []  # (is a function's body, first line) of every open brace
    for at, char in enumerate(text):
        if char == "\n":
            line += 1
        elif char == "{":
            head = text[head_from:at].strip()
            is_scope = re.search(r"\b(namespace|class|struct|union|enum|extern)\b[^()=]*$", head)
            is_function = not inside and not is_scope and ")" in head and not re.search(r"[=,(]$", head)
            scopes.append((is_function, line))
            inside += is_function
            head_from = at + 1
        elif char == "}" and scopes:
            was_function, first = scopes.pop()
            inside -= was_function
            head_from = at + 1
            if was_function:
                yield first, line - first + 1
        elif char == ";":
            head_from = at + 1


def check_sizes(path, lines):
    if len(lines) > MAX_FILE_LINES:
        yield MAX_FILE_LINES, f"the file has {len(lines)} lines; {MAX_FILE_LINES} are the limit"
    if path.endswith((".h", ".cpp")):
        for first, length in functions("\n".join(lines)):
            if length > MAX_FUNCTION_LINES:
                yield first, f"the function has {length} lines; {MAX_FUNCTION_LINES} are the limit"


def check_words(lines):
    for number, line in enumerate(lines, 1):
        if found := UNFINISHED.search(line):
            yield number, f"{found.group(0)}: finish it or write it down in the tracker"


def named_paths(path, line):
    """Paths of the repository that a line of a document, or of a source's comment, names."""
    if path.endswith(".md"):
        for name in re.findall(r"`([^`\s]+)`", line):
            yield name
        for name in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", line):
            if "://" not in name:
                yield os.path.normpath(os.path.join(os.path.dirname(path), name))
    else:
        yield from re.findall(r"\bdocs/[\w./-]+\.md\b", line)


def check_names(path, lines, known, tops):
    folders = {os.path.dirname(name) for name in known}
    folders |= {top for folder in folders for top in [folder[:i] for i, c in enumerate(folder) if c == "/"]}
    for number, line in enumerate(lines, 1):
        for name in named_paths(path, line):
            name = name.removeprefix("./").rstrip("/.,:")
            if name.split("/")[0] not in tops or "/" not in name or re.search(r"[*<>{}$…A-Z]|\.\.", name.split("/")[-1]):
                continue
            if name not in known and name not in folders:
                yield number, f"names {name}, which does not exist"


def check_cycles(includes):
    state = {}

    def visit(path, trail):
        state[path] = "open"
        for target in includes.get(path, []):
            if state.get(target) == "open":
                cycle = trail[trail.index(target):] if target in trail else [path]
                yield path, 1, "includes itself by way of " + " -> ".join(cycle + [target])
            elif target not in state:
                yield from visit(target, trail + [target])
        state[path] = "done"

    for path in sorted(includes):
        if path not in state:
            yield from visit(path, [path])


def check(root):
    names = files_of(root)
    known = set(names)
    tops = {name.split("/")[0] for name in names if "/" in name}
    includes = {}
    for path in names:
        is_source = path.endswith((".h", ".cpp", ".c"))
        is_text = is_source or path.endswith((".md", ".py", ".sh", ".mjs", ".cmake", ".txt", ".yaml", ".sql"))
        is_script = "." not in os.path.basename(path)
        if not (is_text or is_script):
            continue
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
        if path in ("LICENSE", "tests/check/layers_test.py"):
            continue
        findings = list(check_words(lines))
        if is_source:
            findings += [*check_edges(path, lines, known), *check_foreign(path, lines)]
            includes[path] = [m.group(1) for m in map(INCLUDE.match, lines) if m and m.group(1) in known]
        if is_source or path.endswith((".py", ".mjs")) or is_script:
            findings += check_sizes(path, lines)
        if is_source or path.endswith(".md"):
            findings += check_names(path, lines, known, tops)
        yield from ((path, number, message) for number, message in findings)
    yield from check_cycles(includes)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    findings = list(check(root))
    for path, number, message in findings:
        print(f"{path}:{number}: {message}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
