#!/usr/bin/env python3
"""Counts test cases in a Bazel run, from its build events and the test.xml of each target.

    count_tests.py BUILD_EVENTS.json

Prints "PASSED FAILED SKIPPED", then one line for each failed target with its failed cases.
A target that does not build, or that fails without naming a case, counts as one failure.
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as xml


def cases_of(path):
    """(passed, failed names, skipped) of one test.xml."""
    passed, failed, skipped = 0, [], 0
    for case in xml.parse(path).getroot().iter("testcase"):
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def read_events(path):
    """Paths of test.xml by target, status by target, and the targets that did not build."""
    reports, status, broken = {}, {}, set()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            kind = event.get("id", {})
            if "testResult" in event:
                outputs = event["testResult"].get("testActionOutput", [])
                for output in outputs:
                    if output["name"] == "test.xml" and "uri" in output:
                        file = urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path)
                        # The last attempt counts; a shard is a report of its own.
                        shard = kind["testResult"].get("shard", 1)
                        reports.setdefault(kind["testResult"]["label"], {})[shard] = file
            elif "testSummary" in event:
                summary = event["testSummary"]
                status[kind["testSummary"]["label"]] = summary["overallStatus"]
            elif "targetCompleted" in kind:
                if not event.get("completed", {}).get("success"):
                    broken.add(kind["targetCompleted"]["label"])
            elif "unconfiguredLabel" in kind and "aborted" in event:
                broken.add(kind["unconfiguredLabel"]["label"])
            elif "pattern" in kind and "aborted" in event:
                broken.update(kind["pattern"]["pattern"])
    return reports, status, broken


def main():
    reports, status, broken = read_events(sys.argv[1])
    passed, failed, skipped, lines = 0, 0, 0, []
    for label in sorted(set(status) | broken):
        names = []
        for file in reports.get(label, {}).values():
            try:
                some_passed, some_names, some_skipped = cases_of(file)
            except (OSError, xml.ParseError) as error:
                some_passed, some_names, some_skipped = 0, ["test.xml: %s" % error], 0
            passed += some_passed
            skipped += some_skipped
            names += some_names
        outcome = status.get(label, "DOES NOT BUILD")
        if outcome != "PASSED":
            failed += max(1, len(names))
            lines.append("  %s: %s %s" % (label, outcome, " ".join(names)))
    print(passed, failed, skipped)
    for line in lines:
        print(line.rstrip())


if __name__ == "__main__":
    main()
