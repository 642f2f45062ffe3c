"""The tasks: what their contexts look like and what is asked about them.

`make(task, split, index)` gives one context as a plain dictionary, the same on every machine. The
splits draw from seeds of their own. Templates belong to a *consumer* (the agent that reads the
fillings): calibration and test share the consumers, with other fillings, because a method that
learns from a consumer's past requests meets the same template again; training never sees them.
"""

import itertools
import random

import contexts
import language
from contexts import Plan

FORMAT = "kedge-tasks"
VERSION = 2

# [begin, end) of the seeds. A context's seed is the beginning of its split plus its index.
SEEDS = {
    "test": (1_000_000, 2_000_000),
    "calibration": (2_000_000, 3_000_000),
    "train": (10_000_000, 1_000_000_000_000),
}
CONSUMERS = 4
SHUFFLES = 3  # orders of one set of candidates
SHARES = (5, 15, 50)  # percent of a filling's facts that depend on what is outside of it
DENSITIES = (10, 30, 100)  # percent of a filling's words that are facts
DENSE_WORDS = 90  # in a filling of density: 30 facts, or 9, or 3
FACTS = 20  # in a filling of ditto and carry: 5% is one of them


def _rng(task, split, seed):
    return random.Random("kedge-tasks %d %s %s %d" % (VERSION, task, split, seed))


def _consumer(task, number, count, style, vouchers=False):
    rng = random.Random("kedge-tasks %d %s consumer %d" % (VERSION, task, number))
    return contexts.templates(rng, count, style, vouchers)


def _plain(count):
    return Plan(["plain"] * count, set())


def _question(words, answer, tag):
    return {"text": " ".join(words), "answer": " ".join(answer), "tag": tag}


def _pick(rng, facts, count):
    return rng.sample(facts, min(count, len(facts)))


def recall(rng, number):
    """A colour out of 120 facts. Near: in the last filling; far: in the first."""
    made = contexts.fill(rng, _consumer("recall", number, 6, "grid"), [_plain(FACTS)] * 6)
    tags = {0: "far", 5: "near"}
    chosen = [fact for which in range(6)
              for fact in _pick(rng, [f for f in made.facts if f.filling == which], 3)]
    return made, [_question(["colour", fact.name], [fact.value],
                            tags.get(fact.filling, "between")) for fact in chosen]


def role(rng, number):
    """Who vouches for a name: stands only in the template before her filling."""
    style = "grid" if number < CONSUMERS // 2 else "free"
    sizes = [8] * 5 if style == "grid" else [rng.randint(6, 10) for _ in range(5)]
    made = contexts.fill(rng, _consumer("role", number, 5, style, True), list(map(_plain, sizes)))
    return made, [_question(["voucher", fact.name], [fact.voucher], style)
                  for fact in _pick(rng, made.facts, 16)]


def alias(rng, number):
    """The colour of a name that is the same as another, mostly in another filling."""
    plans = []
    for which in range(4):
        forms = ["plain"] * 12
        for place in rng.sample(range(1, 12), 4):
            forms[place] = "own-alias"
        if which:
            for place in rng.sample([i for i in range(12) if forms[i] == "own-alias"], 3):
                forms[place] = "alias"
        plans.append(Plan(forms, set()))
    made = contexts.fill(rng, _consumer("alias", number, 4, "grid"), plans)
    aliases = [fact for fact in made.facts if fact.form == "alias"]
    cross = [fact for fact in aliases if fact.value_filling != fact.filling]
    own = [fact for fact in aliases if fact.value_filling == fact.filling]
    return made, ([_question(["colour", fact.name], [fact.value], "cross")
                   for fact in _pick(rng, cross, 9)] +
                  [_question(["colour", fact.name], [fact.value], "own")
                   for fact in _pick(rng, own, 3)])


def _leading(share):
    """How many of a filling's facts depend on what is outside."""
    return max(1, FACTS * share // 100)


def ditto(rng, number, index):
    """As before, across a border: the first facts of a filling repeat the last one outside."""
    share = SHARES[index % len(SHARES)]
    plans = []
    for which in range(4):
        lead = _leading(share) if which else 0
        forms = ["ditto"] * lead + ["plain"] * (FACTS - lead)
        for place in rng.sample(range(lead + 1, FACTS), 3):
            forms[place] = "ditto"
        plans.append(Plan(forms, set()))
    made = contexts.fill(rng, _consumer("ditto", number, 4, "grid"), plans)
    return made, _leading_questions(
        rng, [f for f in made.facts if f.form == "ditto"], "colour", share,
        lambda fact: (fact.value, fact.value_filling))


def carry(rng, number, index):
    """The heading that holds for a name: the latest one, often of an earlier filling."""
    share = SHARES[index % len(SHARES)]
    plans = []
    for which in range(4):
        lead = _leading(share) if which else 0
        headings = {lead} | set(rng.sample(range(lead + 2, FACTS), 2))
        plans.append(Plan(["plain"] * FACTS, headings))
    made = contexts.fill(rng, _consumer("carry", number, 4, "grid"), plans)
    return made, _leading_questions(rng, made.facts, "place", share,
                                    lambda fact: (fact.place, fact.place_filling))


def _leading_questions(rng, facts, word, share, answer):
    """Questions on what crosses a border (nine at most), and a third as many on what does not."""
    cross = [fact for fact in facts if answer(fact)[1] != fact.filling]
    own = [fact for fact in facts if answer(fact)[1] == fact.filling]
    cross = _pick(rng, cross, 9)
    return ([_question([word, fact.name], [answer(fact)[0]], "cross%d" % share) for fact in cross] +
            [_question([word, fact.name], [answer(fact)[0]], "own")
             for fact in _pick(rng, own, len(cross) // 3)])


def sums(rng, number):
    """The sum of two recalled numbers, of the same filling or of two."""
    made = contexts.fill(rng, _consumer("sum", number, 3, "grid"), [_plain(8)] * 3, "number")
    asked = []
    for want_same in (True, False):
        pairs = [(a, b) for a in made.facts for b in made.facts
                 if a is not b and (a.filling == b.filling) == want_same]
        for first, second in rng.sample(pairs, 6):
            total = sum(language.NUMBERS.index(fact.value) for fact in (first, second))
            asked.append(_question(["sum", first.name, "plus", second.name],
                                   [language.NUMBERS[total]], "same" if want_same else "two"))
    return made, asked


def long(rng, number):
    """All facts of a filling in order, resolved: an answer of 68 words."""
    plans = []
    for which in range(4):
        forms = ["plain"] * 23
        if which:
            forms[1:4] = ["ditto"] * 3
            forms[0] = "ditto"
            for place in rng.sample(range(6, 23), 2):
                forms[place] = "alias"
        plans.append(Plan(forms, set()))
    made = contexts.fill(rng, _consumer("long", number, 4, "grid"), plans)
    asked = []
    for which in rng.sample(range(1, 4), 2):
        listed = made.listed[which]
        asked.append(_question(["list", listed[0]], listed[1:], "filling%d" % which))
    return made, asked


def judge_templates(templates, rule):
    first = list(templates[0])
    return [first[:1] + ["rule", rule, "wins", "."] + first[1:]] + templates[1:]


def best(names, scores, rule):
    choose = max if rule == "highest" else min
    return names[scores.index(choose(scores))]


def judge(rng, number, order):
    """The best of four candidates by the rule of the first template."""
    rule = "highest" if number % 2 == 0 else "lowest"
    templates = judge_templates(_consumer("judge", number, 4, "grid"), rule)
    scores = rng.sample(range(21), 4)
    orders = rng.sample(list(itertools.permutations(range(4))), SHUFFLES)
    made, names = contexts.candidates(rng, templates, scores, 5, orders[order])
    return made, [_question(["pick", "winner"], [best(names, scores, rule)], rule)]


def density(rng, number, index):
    """A colour, where only a share of what is read says anything: what pruning is about."""
    share = DENSITIES[index % len(DENSITIES)]
    facts = DENSE_WORDS * share // 100 // 3
    made = contexts.fill(rng, _consumer("density", number, 4, "grid"), [_plain(facts)] * 4)
    for which in range(1, len(made.pieces), 2):
        made.pieces[which] = contexts.dilute(rng, made.pieces[which], DENSE_WORDS)
    return made, [_question(["colour", fact.name], [fact.value], "density%d" % share)
                  for fact in _pick(rng, made.facts, 12)]


TASKS = ("recall", "role", "alias", "ditto", "carry", "sum", "long", "judge", "prose", "density")


def _record(task, index, consumer, made, questions):
    pieces = []
    for which, words in enumerate(made.pieces):
        piece = {"kind": "filling", "placeholder": which // 2} if which % 2 else {
            "kind": "template"}
        pieces.append(dict(piece, text=" ".join(words)))
    return {"id": "%s/%d" % (task, index), "consumer": "%s-%d" % (task, consumer),
            "pieces": pieces, "questions": questions}


def make(task, split, index):
    """Context `index` of a task. Raises ValueError naming what is unknown or out of range."""
    if task not in TASKS:
        raise ValueError("task '%s' is none of: %s" % (task, " ".join(TASKS)))
    if split not in SEEDS:
        raise ValueError("split '%s' is none of: %s" % (split, " ".join(SEEDS)))
    begin, end = SEEDS[split]
    if not 0 <= index < end - begin:
        raise ValueError("context %d is outside of split '%s'" % (index, split))
    if task == "prose":
        import prose
        return prose.record(split, index)
    consumer = index % CONSUMERS
    if task == "judge":
        group = index // SHUFFLES
        consumer = group % CONSUMERS
        rng = _rng(task, split, begin + group)
        record = _record(task, index, consumer, *judge(rng, consumer, index % SHUFFLES))
        return dict(record, group="judge/group%d" % group, shuffle=index % SHUFFLES)
    rng = _rng(task, split, begin + index)
    if task == "density":
        made = density(rng, consumer, index)
    elif task in ("ditto", "carry"):
        made = {"ditto": ditto, "carry": carry}[task](rng, consumer, index // CONSUMERS)
    else:
        made = {"recall": recall, "role": role, "alias": alias, "sum": sums,
                "long": long}[task](rng, consumer)
    return _record(task, index, consumer, *made)
