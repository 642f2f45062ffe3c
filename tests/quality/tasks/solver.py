"""Answers questions from the words of a context alone: the tests compare it with the generator.

It reads left to right as a person would, and shares nothing with contexts.py but the word lists.
"""

import language

_NAMES, _VOUCHERS = set(language.NAMES), set(language.VOUCHERS)
_PLACES = set(language.PLACES)
_FILLER = set(language.FILLER)


class Reading:
    """What a context says of every name."""

    def __init__(self, record):
        self.value, self.place, self.voucher = {}, {}, {}
        self.value_home, self.place_home, self.home = {}, {}, {}  # piece where it stands
        self.order, self.scores, self.rule = [], {}, ""
        latest, place, voucher = ("", -1), ("", -1), ""
        for number, piece in enumerate(record["pieces"]):
            words = piece["text"].split()
            template = piece["kind"] == "template"
            at = 0
            while at < len(words):
                word, rest = words[at], words[at + 1:at + 4]
                if template:
                    if word == "rule":
                        self.rule = rest[0]
                    if word in _VOUCHERS:
                        voucher = word
                    at += 1
                elif word in _FILLER:
                    at += 1
                elif word == "at":
                    place = (rest[0], number)
                    at += 3
                elif word == "score":
                    self.scores[rest[1]] = language.NUMBERS.index(rest[0])
                    at += 4
                else:
                    if word == "alias":
                        name, source = rest[0], (self.value[rest[1]], self.value_home[rest[1]])
                        at += 4
                    else:
                        name = word
                        source = latest if rest[0] == "ditto" else (rest[0], number)
                        at += 3
                    if name not in _NAMES or name in self.value:
                        raise ValueError("%s: '%s' is no new name" % (record["id"], name))
                    latest = source
                    self.value[name], self.value_home[name] = source
                    self.place[name], self.place_home[name] = place
                    self.voucher[name], self.home[name] = voucher, number
                    self.order.append(name)

    def answer(self, question):
        """The answer's words."""
        word, *rest = question.split()
        if word in ("colour", "number"):
            return self.value[rest[0]]
        if word == "voucher":
            return self.voucher[rest[0]]
        if word == "place":
            return self.place[rest[0]]
        if word == "sum":
            first, second = (language.NUMBERS.index(self.value[name]) for name in rest[::2])
            return language.NUMBERS[first + second]
        if word == "pick":
            choose = {"highest": max, "lowest": min}[self.rule]
            return choose(self.scores, key=self.scores.get)
        if word == "list":
            inside = [n for n in self.order if self.home[n] == self.home[rest[0]]]
            inside = inside[inside.index(rest[0]):]
            return " ".join("%s %s ." % (n, self.value[n]) for n in inside)[len(rest[0]) + 1:]
        raise ValueError("'%s' is no question" % question)
