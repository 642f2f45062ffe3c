"""Plain text for next-token loss: prose.txt, a frozen snapshot of Kedge's own documentation.

Every fifth paragraph is held out, for calibration and test in turn; the others are for training. A
context is a window of held-out text, in three pieces.
"""

import functools
import os
import random

import language

BEFORE, MIDDLE, AFTER = 64, 160, 160  # characters of the template, the filling, the scored template


@functools.lru_cache(maxsize=None)
def text(split):
    """The prose of a split: its paragraphs joined by spaces."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prose.txt")
    with open(path, encoding="ascii") as opened:
        paragraphs = opened.read().split("\n")
    kept = []
    for number, paragraph in enumerate(p for p in paragraphs if p):
        home = "train" if number % 5 else ("test" if number % 10 else "calibration")
        if home == split:
            kept.append(paragraph)
    return " ".join(kept)


def window(split, rng, length):
    """`length` characters from a random place."""
    whole = text(split)
    begin = rng.randrange(len(whole) - length)
    return whole[begin:begin + length]


def record(split, index):
    """A context: the loss is over the words of the last piece."""
    rng = random.Random("kedge-tasks prose %s %d" % (split, index))
    taken = window(split, rng, BEFORE + MIDDLE + AFTER)
    parts = taken[:BEFORE], taken[BEFORE:BEFORE + MIDDLE], taken[BEFORE + MIDDLE:]
    pieces = []
    for which, part in enumerate(parts):
        words = language.spell_exactly(part)
        piece = {"kind": "filling", "placeholder": 0} if which == 1 else {"kind": "template"}
        if which == 0:
            words = [language.BOS] + words
        pieces.append(dict(piece, text=" ".join(words), plain=part))
    return {"id": "prose/%d" % index, "consumer": "prose-0", "pieces": pieces, "questions": []}
