#!/usr/bin/env python3
"""Each rule of tools/tidy finds what it is for, and leaves alone what looks like it."""

import importlib.machinery
import importlib.util
import os
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))


def load_tidy():
    loader = importlib.machinery.SourceFileLoader("tidy", os.path.join(HERE, "tidy"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tidy", loader))
    loader.exec_module(module)
    return module


tidy = load_tidy()


class TidyTest(unittest.TestCase):
    def rules(self, path, text):
        """Names of the rules that `text` breaks as the file `path`."""
        findings = tidy.Findings()
        tidy.check_patterns(path, text, findings)
        tidy.check_shape(path, text, findings)
        tidy.check_includes(path, text, {"proto/key.h", "store/node/node.h"}, findings)
        return [message.split("[")[1].split("]")[0] for _, _, message in findings.all]

    def test_world_belongs_to_world(self):
        for rule, line in [
            ("thread", "std::thread worker(run);"),
            ("thread", "auto later = std::async(run);"),
            ("sleep", "std::this_thread::sleep_for(kPause);"),
            ("clock", "auto now = std::chrono::steady_clock::now();"),
            ("clock", "clock_gettime(CLOCK_MONOTONIC, &now);"),
            ("file", "int fd = open(path, O_RDONLY);"),
            ("file", "std::ifstream file(path);"),
        ]:
            with self.subTest(line):
                self.assertEqual(self.rules("store/node/x.cc", line + "\n"), [rule])
                self.assertEqual(self.rules("store/world/x.cc", line + "\n"), [])
                self.assertEqual(self.rules("store/node/x_test.cc", line + "\n"), [])
                self.assertEqual(self.rules("store/node/x.cc", "// " + line + "\n"), [])

    def test_words_that_only_look_like_it(self):
        for line in ["map.open(x);", "Open(path);", "reopen(path);", "std::thread::id id;",
                     'Log("std::thread");', "const int million = 1'000'000;"]:
            with self.subTest(line):
                self.assertEqual(self.rules("store/node/x.cc", line + "\n"), [])

    def test_libraries(self):
        self.assertEqual(self.rules("gpu/x.cc", "throw Error();\n"), ["throw"])
        self.assertEqual(self.rules("gpu/x.cc", "#include <iostream>\n"), ["iostream"])
        self.assertEqual(self.rules("tools/x.cc", "#include <iostream>\n"), [])
        self.assertEqual(self.rules("client/x.cc", "absl::Mutex mutex_;\n"), ["absl-mutex"])
        self.assertEqual(self.rules("proto/x.cc", "#include <ranges>\n"), ["ranges"])

    def test_a_reason_is_accepted(self):
        text = "// tidy: file, O_DIRECT is not in world/\nint fd = open(path, 0);\n"
        self.assertEqual(self.rules("store/tier/x.cc", text), [])

    def test_direction_of_includes(self):
        self.assertEqual(self.rules("proto/x.cc", '#include "store/node/node.h"\n'), ["direction"])
        self.assertEqual(self.rules("store/node/x.cc", '#include "proto/key.h"\n'), [])
        self.assertEqual(self.rules("store/node/x.cc", '#include "proto/gone.h"\n'), ["include"])
        self.assertEqual(self.rules("store/node/x.cc", '#include "node.h"\n'), ["include"])

    def test_shape(self):
        self.assertEqual(self.rules("gpu/x.h", "int x;\n"), ["pragma-once"])
        self.assertEqual(self.rules("gpu/x.cc", "int x;"), ["end"])
        self.assertEqual(self.rules("gpu/x.cc", "int x; \n"), ["trailing-space"])
        self.assertEqual(self.rules("gpu/x.cc", "//" + "x" * 99 + "\n"), ["long-line"])
        self.assertEqual(self.rules("gpu/x.cc", "int x;\n" * 601), ["long-file"])
        promise = "TO" + "DO"
        self.assertEqual(self.rules("gpu/x.cc", "// %s: later\n" % promise), ["promise"])

    def test_names(self):
        findings = tidy.Findings()
        builds = {"store/node/BUILD": 'cc_binary(name = "kedged")'}
        tidy.check_names("store/common/x.h", set(), builds, findings)
        tidy.check_names("store/node/y_test.cc", {"store/node/x.h"}, builds, findings)
        tidy.check_names("store/node/x_test.cc", {"store/node/x.h"}, builds, findings)
        tidy.check_names("store/node/kedged_test.cc", set(), builds, findings)
        tidy.check_build("store/node/x.cc", {"store/node/BUILD": 'srcs = ["y.cc"]'}, findings)
        tidy.check_build("store/node/y.cc", {"store/node/BUILD": 'srcs = ["y.cc"]'}, findings)
        tidy.check_build("store/z.cc", {}, findings)
        found = [(path, message.split("[")[1].split("]")[0]) for path, _, message in findings.all]
        self.assertEqual(found, [
            ("store/common/x.h", "folder"),
            ("store/node/y_test.cc", "test-name"),
            ("store/node/x.cc", "build"),
            ("store/z.cc", "build"),
        ])


if __name__ == "__main__":
    unittest.main()
