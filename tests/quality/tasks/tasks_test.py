#!/usr/bin/env python3
"""Tests of the task generator: the standard library only."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)

import language  # noqa: E402
import prose  # noqa: E402
import tasks  # noqa: E402
from solver import Reading  # noqa: E402

CONTEXTS = 48
LONGEST = 512
ASKED = [task for task in tasks.TASKS if task != "prose"]


def generate(*arguments, **environment):
    return subprocess.run([sys.executable, os.path.join(FOLDER, "generate.py"), *arguments],
                          capture_output=True, text=True, env=dict(os.environ, **environment))


def records(task, split="test", contexts=CONTEXTS):
    return [tasks.make(task, split, index) for index in range(contexts)]


def words_of(record):
    return [word for piece in record["pieces"] for word in piece["text"].split(" ")]


class Files(unittest.TestCase):
    def test_same_bytes_in_another_process(self):
        for task in tasks.TASKS:
            first = generate("--task", task, "--contexts", "7", PYTHONHASHSEED="1")
            second = generate("--task", task, "--contexts", "7", PYTHONHASHSEED="2")
            self.assertEqual(first.returncode, 0, first.stderr)
            self.assertEqual(first.stdout, second.stdout)
            self.assertEqual(len(first.stdout.splitlines()), 8)

    def test_header(self):
        header = json.loads(generate("--task", "role", "--contexts", "2").stdout.splitlines()[0])
        self.assertEqual(header, {"format": "kedge-tasks", "version": 2, "task": "role",
                                  "split": "test", "seed": 1000000, "contexts": 2})

    def test_more_contexts_begin_with_the_same(self):
        few = generate("--task", "judge", "--contexts", "3").stdout.splitlines()
        many = generate("--task", "judge", "--contexts", "9").stdout.splitlines()
        self.assertEqual(few[1:], many[1:4])

    def test_all_writes_a_file_for_each_task(self):
        with tempfile.TemporaryDirectory() as folder:
            result = generate("--all", "--contexts", "1", "--out", folder)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(sorted(os.listdir(folder)),
                             sorted(task + ".jsonl" for task in tasks.TASKS))

    def test_bad_flags_are_named(self):
        for arguments, said in ((["--task", "riddle"], "riddle"),
                                (["--task", "role", "--contexts", "0"], "--contexts 0"),
                                (["--task", "role", "--split", "dev"], "dev"),
                                (["--all"], "--out")):
            result = generate(*arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertIn(said, result.stderr)

    def test_unknown_task_split_and_index_are_named(self):
        for arguments, said in ((("riddle", "test", 0), "riddle"), (("role", "dev", 0), "dev"),
                                (("role", "test", 1_000_000), "1000000")):
            with self.assertRaisesRegex(ValueError, said):
                tasks.make(*arguments)


class Contexts(unittest.TestCase):
    def test_a_reader_finds_the_same_answers(self):
        for task in ASKED:
            for record in records(task):
                reading = Reading(record)
                self.assertTrue(record["questions"])
                for question in record["questions"]:
                    self.assertEqual(reading.answer(question["text"]), question["answer"],
                                     (record["id"], question["text"]))

    def test_every_word_is_in_the_vocabulary(self):
        known = set(language.vocabulary())
        for task in tasks.TASKS:
            for record in records(task):
                asked = [word for question in record["questions"]
                         for word in (question["text"] + " " + question["answer"]).split(" ")]
                self.assertLessEqual(set(words_of(record)) | set(asked), known)

    def test_nothing_is_longer_than_the_model_was_evaluated_for(self):
        for task in tasks.TASKS:
            for record in records(task):
                longest = max([len((q["text"] + " " + q["answer"]).split())
                               for q in record["questions"]] or [0])
                self.assertLessEqual(len(words_of(record)) + longest, LONGEST, record["id"])

    def test_pieces_alternate_and_begin_with_bos(self):
        for task in tasks.TASKS:
            for record in records(task):
                kinds = [piece["kind"] for piece in record["pieces"]]
                self.assertEqual(words_of(record)[0], language.BOS)
                self.assertEqual(words_of(record).count(language.BOS), 1)
                for index, kind in enumerate(kinds):
                    self.assertEqual(kind, "filling" if index % 2 else "template")

    def test_no_question_twice(self):
        for task in ASKED:
            for record in records(task):
                texts = [question["text"] for question in record["questions"]]
                self.assertEqual(len(texts), len(set(texts)), record["id"])

    def test_tags_say_where_the_answer_stands(self):
        for record in records("recall"):
            reading, last = Reading(record), len(record["pieces"]) - 1
            for question in record["questions"]:
                home = reading.home[question["text"].split()[1]]
                self.assertEqual(question["tag"],
                                 {1: "far", last: "near"}.get(home, "between"))
        for task, word, homes in (("alias", "colour", "value_home"),
                                  ("ditto", "colour", "value_home"),
                                  ("carry", "place", "place_home")):
            for record in records(task):
                reading = Reading(record)
                for question in record["questions"]:
                    asked, name = question["text"].split()
                    self.assertEqual(asked, word)
                    crosses = getattr(reading, homes)[name] != reading.home[name]
                    self.assertEqual(question["tag"].startswith("cross"), crosses)
                    self.assertEqual(question["tag"].startswith("own"), not crosses)

    def test_the_stated_share_of_a_filling_depends_on_what_is_outside(self):
        for task, homes in (("ditto", "value_home"), ("carry", "place_home")):
            shares = set()
            for record in records(task):
                reading = Reading(record)
                stated = {int(q["tag"][5:]) for q in record["questions"] if q["tag"] != "own"}
                self.assertEqual(len(stated), 1)
                for filling in (3, 5, 7):
                    inside = [n for n in reading.order if reading.home[n] == filling]
                    crossing = [n for n in inside if getattr(reading, homes)[n] != filling]
                    self.assertEqual(len(crossing) * 100 // len(inside), min(stated), record["id"])
                shares |= stated
            self.assertEqual(shares, set(tasks.SHARES))

    def test_the_stated_share_of_a_filling_is_facts(self):
        shares = set()
        for record in records("density"):
            stated = {int(q["tag"][7:]) for q in record["questions"]}
            self.assertEqual(len(stated), 1)
            for piece in record["pieces"][1::2]:
                words = piece["text"].split()
                filler = sum(word in language.FILLER for word in words)
                self.assertEqual(len(words), tasks.DENSE_WORDS)
                self.assertEqual(100 * (len(words) - filler) // len(words), min(stated))
            shares |= stated
        self.assertEqual(shares, set(tasks.DENSITIES))

    def test_role_answers_stand_in_no_filling(self):
        for record in records("role"):
            fillings = {word for piece in record["pieces"] if piece["kind"] == "filling"
                        for word in piece["text"].split()}
            self.assertFalse(fillings & set(language.VOUCHERS))

    def test_long_answers_are_long(self):
        for record in records("long"):
            for question in record["questions"]:
                self.assertGreaterEqual(len(question["answer"].split()), 64)

    def test_judge_shuffles_the_same_candidates(self):
        made = records("judge")
        for begin in range(0, len(made), tasks.SHUFFLES):
            group = made[begin:begin + tasks.SHUFFLES]
            self.assertEqual(len({record["group"] for record in group}), 1)
            self.assertEqual([record["shuffle"] for record in group], [0, 1, 2])
            fillings = [sorted(p["text"] for p in record["pieces"] if p["kind"] == "filling")
                        for record in group]
            self.assertEqual(fillings[0], fillings[1])
            self.assertEqual(fillings[0], fillings[2])
            self.assertEqual(len({record["questions"][0]["answer"] for record in group}), 1)


class Splits(unittest.TestCase):
    def test_seeds_are_disjoint(self):
        ranges = sorted(tasks.SEEDS.values())
        for (_, end), (begin, _) in zip(ranges, ranges[1:]):
            self.assertLessEqual(end, begin)

    def test_contexts_differ_between_splits_and_seeds(self):
        for task in ASKED:
            seen = set()
            for split in tasks.SEEDS:
                for record in records(task, split, 12):
                    seen.add(json.dumps([record["pieces"], record["questions"]]))
            self.assertEqual(len(seen), 36, task)

    def test_a_consumer_has_one_template_with_many_fillings(self):
        for task in ASKED:
            by_consumer = {}
            for split in ("test", "calibration"):
                for record in records(task, split, 24):
                    by_consumer.setdefault(record["consumer"], set()).add(
                        "|".join(p["text"] for p in record["pieces"] if p["kind"] == "template"))
            self.assertEqual(len(by_consumer), tasks.CONSUMERS)
            for consumer, templates in by_consumer.items():
                # A heading in the first template is the only thing that may vary.
                self.assertEqual(len(templates), 1, consumer)

    def test_prose_is_split_by_paragraph(self):
        texts = {split: prose.text(split) for split in tasks.SEEDS}
        for text in texts.values():
            self.assertGreater(len(text), 5000)
            self.assertTrue(text.isascii())
        self.assertGreater(len(texts["train"]), 4 * len(texts["test"]))
        for split in ("test", "calibration"):
            for record in records("prose", split, 10):
                whole = "".join(piece["plain"] for piece in record["pieces"])
                self.assertIn(whole, texts[split])
                self.assertNotIn(whole[:64], texts["train"])
                self.assertEqual([language.BOS] + language.spell_exactly(whole), words_of(record))


class Vocabulary(unittest.TestCase):
    def test_words_are_distinct_and_few(self):
        words = language.vocabulary()
        self.assertEqual(len(words), len(set(words)))
        self.assertLessEqual(len(words), 512)
        self.assertEqual(words[0], language.BOS)

    def test_lists_do_not_overlap(self):
        groups = (language.NAMES, language.COLOURS, language.VOUCHERS, language.PLACES,
                  language.NUMBERS, language.FILLER, language.GRAMMAR)
        self.assertEqual(sum(map(len, groups)), len(set().union(*groups)))


if __name__ == "__main__":
    unittest.main()
