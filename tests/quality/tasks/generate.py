#!/usr/bin/env python3
"""Writes task files: JSON lines, a header and one context a line.

    generate.py --task role --split test --contexts 40 --out FILE
    generate.py --all --split test --contexts 40 --out FOLDER     FOLDER/TASK.jsonl for each task
    generate.py --vocabulary                                      prints the words, one a line
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import language  # noqa: E402
import tasks  # noqa: E402

MAX_CONTEXTS = 100_000


def lines(task, split, contexts):
    """The lines of a task file."""
    header = {"format": tasks.FORMAT, "version": tasks.VERSION, "task": task, "split": split,
              "seed": tasks.SEEDS[split][0], "contexts": contexts}
    yield json.dumps(header)
    for index in range(contexts):
        yield json.dumps(tasks.make(task, split, index), ensure_ascii=False)


def write(path, task, split, contexts):
    try:
        with open(path, "w", encoding="utf-8") as opened:
            opened.writelines(line + "\n" for line in lines(task, split, contexts))
    except OSError as error:
        sys.exit("generate.py: --out %s: %s" % (path, error.strerror))


def main():
    parser = argparse.ArgumentParser(description="Writes the task files of tests/quality.")
    parser.add_argument("--task", choices=tasks.TASKS)
    parser.add_argument("--all", action="store_true", help="every task, --out names a folder")
    parser.add_argument("--split", choices=sorted(tasks.SEEDS), default="test")
    parser.add_argument("--contexts", type=int, default=40)
    parser.add_argument("--out", help="file, or folder with --all; default: print")
    parser.add_argument("--vocabulary", action="store_true", help="print the words, one a line")
    given = parser.parse_args()
    if given.vocabulary:
        print("\n".join(language.vocabulary()))
        return
    if not 1 <= given.contexts <= MAX_CONTEXTS:
        parser.error("--contexts %d: 1 to %d" % (given.contexts, MAX_CONTEXTS))
    if given.all == bool(given.task):
        parser.error("give --task NAME or --all")
    if given.all:
        if not given.out:
            parser.error("--all needs --out FOLDER")
        os.makedirs(given.out, exist_ok=True)
        for task in tasks.TASKS:
            write(os.path.join(given.out, task + ".jsonl"), task, given.split, given.contexts)
    elif given.out:
        write(given.out, given.task, given.split, given.contexts)
    else:
        for line in lines(given.task, given.split, given.contexts):
            print(line)


if __name__ == "__main__":
    main()
