#!/usr/bin/env python3
"""Plants one violation of each rule in a small tree and expects exactly that finding."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import layers  # noqa: E402

CLEAN = {
    "base/result.h": "#pragma once\n#include <string>\n",
    "base/yaml.cpp": '#include "base/result.h"\n#include <yaml-cpp/eventhandler.h>\n',
    "policy/model.h": '#pragma once\n#include "base/result.h"\n',
    "policy/model.cpp": '#include "policy/model.h"\n#include <re2/re2.h>\n',
    "dataplane/events.h": '#include "base/result.h"\n',
    "dataplane/backend.h": '#include "policy/model.h"\n',
    "dataplane/nftables/table.cpp": '#include "dataplane/backend.h"\n#include <libmnl/libmnl.h>\n',
    "store/record.h": '#include "policy/model.h"\n',
    "store/flow_store.h": '#include "store/record.h"\n',
    "store/flow_store.cpp": '#include "store/flow_store.h"\n#include <sqlite3.h>\n',
    "logger/attribute.cpp": '#include "dataplane/events.h"\n#include "store/record.h"\n',
    "exporters/fluentbit/codec.cpp": '#include "store/flow_store.h"\n#include <msgpack.hpp>\n',
    "endpoints/registry.h": '#include "policy/model.h"\n',
    "cni/main.cpp": '#include "endpoints/registry.h"\n',
    "daemon/main.cpp": '#include "logger/x.h"\n#include <CLI/CLI.hpp>\n',
    "logger/x.h": "#pragma once\n",
    "lab/lab.h": '#include "endpoints/registry.h"\n',
    "lab/cases_real.cpp": '#include "store/flow_store.h"\n#include "lab/lab.h"\n',
    "cli/main.cpp": '#include "lab/lab.h"\n#include "lab/cases.h"\n',
    "lab/cases.h": "#pragma once\n",
    "tests/policy/model_test.cpp": '#include "logger/x.h"\n#include <sqlite3.h>\n',
    "docs/architecture.md": "See `policy/model.h`, `policy/`, [the store](../store/record.h) and `examples/*.yaml`.\n",
}
LONG_FUNCTION = "int f(int a) {\n" + "  if (a > 1) {\n    ++a;\n  }\n" * 30 + "  return a;\n}\n"
LONG_TABLE = "const int kTable[] = {\n" + "    1,\n" * 100 + "};\n"
UNFINISHED = "TO" + "DO"

# name, file, its content, and the finding ("" = none)
PLANTED = [
    ("policy_uses_dataplane", "policy/a.cpp", '\n#include "dataplane/events.h"\n', "policy/a.cpp:2: policy/ may not include"),
    ("policy_uses_store", "policy/a.cpp", '#include "store/record.h"\n', "policy/a.cpp:1: policy/ may not include"),
    ("base_uses_policy", "base/a.h", '#include "policy/model.h"\n', "base/a.h:1: base/ may not include"),
    ("logger_uses_store", "logger/a.cpp", '#include "store/flow_store.h"\n', "logger/a.cpp:1: logger/ may not include"),
    ("logger_uses_nftables", "logger/a.cpp", '#include "dataplane/nftables/t.h"\n', "is no file of the project"),
    ("exporter_uses_logger", "exporters/a/b.cpp", '#include "logger/x.h"\n', "exporters/ may not include"),
    ("store_uses_logger", "store/a.cpp", '#include "logger/x.h"\n', "store/ may not include"),
    ("cni_uses_policy", "cni/a.cpp", '#include "policy/model.h"\n', "cni/ may not include"),
    ("daemon_uses_lab", "daemon/a.cpp", '#include "lab/lab.h"\n', "daemon/ may not include"),
    ("cli_uses_daemon", "cli/a.cpp", '#include "daemon/d.h"\n', "is no file of the project"),
    ("lab_uses_store", "lab/a.cpp", '#include "store/record.h"\n', "lab/ may not include"),
    ("events_use_nftables", "dataplane/a.h", '#include "dataplane/nftables/n.h"\n', "is no file of the project"),
    ("not_from_the_root", "policy/a.cpp", '#include "model.h"\n', "is no file of the project"),
    ("libmnl_in_logger", "logger/a.cpp", "#include <libmnl/libmnl.h>\n", "<libmnl/libmnl.h> may only be included in"),
    ("libnftnl_in_lab", "lab/a.cpp", "#include <libnftnl/rule.h>\n", "<libnftnl/rule.h> may only be included in"),
    ("sqlite_in_cli", "cli/a.cpp", "#include <sqlite3.h>\n", "<sqlite3.h> may only be included in"),
    ("yaml_in_policy", "policy/a.cpp", "#include <yaml-cpp/yaml.h>\n", "may only be included in base/yaml.cpp"),
    ("regex", "tests/a.cpp", "#include <regex>\n", "<regex> may not be used"),
    ("json_in_header", "store/a.h", "#include <nlohmann/json.hpp>\n", "may not be included by a header"),
    ("json_forward", "store/a.h", "#include <nlohmann/json_fwd.hpp>\n", ""),
    ("iostream_in_header", "cli/a.h", "#include <iostream>\n", "may not be included by a header"),
    ("cycle", "base/a.h", '#include "base/b.h"\n', "is no file of the project"),
    ("own_cycle", "base/a.h", '#include "base/a.h"\n', "base/a.h:1: includes itself"),
    ("long_function", "cli/a.cpp", LONG_FUNCTION, "cli/a.cpp:1: the function has 93 lines"),
    ("long_method", "cli/a.cpp", "namespace a {\nclass B {\n" + LONG_FUNCTION + "};\n}\n", "cli/a.cpp:3: the function has 93"),
    ("long_table", "cli/a.cpp", LONG_TABLE, ""),
    ("braces_in_strings", "cli/a.cpp", 'void f() { g("{{{"); h(\'{\'); }  // {{\n' + LONG_TABLE, ""),
    ("long_file", "cli/a.cpp", "//\n" * 601, "the file has 602 lines"),
    ("unfinished", "cli/a.cpp", f"// {UNFINISHED}: later\n", f"cli/a.cpp:1: {UNFINISHED}"),
    ("doc_names_a_lost_file", "docs/a.md", "See `policy/lost.h`.\n", "docs/a.md:1: names policy/lost.h"),
    ("doc_links_a_lost_file", "docs/a.md", "See [it](lost.md).\n", "docs/a.md:1: names docs/lost.md"),
    ("doc_names_a_build_result", "docs/a.md", "See `build/dev/bin/tierlog` and `a/b`.\n", ""),
    ("source_names_a_lost_document", "cli/a.h", "// see docs/lost.md.\n", "cli/a.h:1: names docs/lost.md"),
]


def findings(files):
    with tempfile.TemporaryDirectory() as root:
        for path, content in files.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(content)
        return [f"{path}:{number}: {message}" for path, number, message in layers.check(root)]


class Layers(unittest.TestCase):
    def test_clean_tree(self):
        self.assertEqual(findings(CLEAN), [])

    def test_planted(self):
        for name, path, content, expected in PLANTED:
            with self.subTest(name):
                found = findings({**CLEAN, path: content})
                self.assertEqual(len(found), 1 if expected else 0, found)
                if expected:
                    self.assertIn(expected, found[0])

    def test_cycle_of_two(self):
        found = findings({**CLEAN, "base/a.h": '#include "base/b.h"\n', "base/b.h": '#include "base/a.h"\n'})
        self.assertEqual(found, ["base/b.h:1: includes itself by way of base/a.h -> base/b.h -> base/a.h"])

    def test_the_table_has_no_cycle(self):
        def reach(room, seen):
            for target in layers.ROOMS[room]:
                target = layers.room_of(target) or layers.room_of(target + "/x")
                self.assertNotEqual(target, seen[0], f"{seen} -> {target}")
                if target not in seen:
                    reach(target, seen + [target])

        for room in layers.ROOMS:
            # The test cases are part of the lab's folder and stand above it.
            reach(room, [room])


if __name__ == "__main__":
    unittest.main()
