"""Training examples: contexts that mix what the tasks ask, with many questions each.

An example is a context and questions behind it, laid out in one row: every question stands at the
position right behind the context and sees only the context and itself, as when it is asked alone.
Labels: the answers; with small weight the next word of the context; and in some places what a
reader has to look up there in any case: at `ditto` and at the last name of an alias line the value
that it stands for, at the first name of a sum that name's number, at the value of a fact the
voucher or the place that holds for it, at a candidate the best one so far. In some rows questions
see the facts only: else they learn to look at templates and headings, where it cannot be told which
of them is meant.
"""

import dataclasses
import os
import random
import sys

TASKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/quality/tasks")
sys.path.insert(0, os.path.realpath(TASKS))

import contexts  # noqa: E402
import language  # noqa: E402
import prose  # noqa: E402
from contexts import Plan  # noqa: E402

ID = {word: number for number, word in enumerate(language.vocabulary())}
NUMBERS = [ID[word] for word in language.NUMBERS]
ANSWER, LOOKUP, HOLDS, CONTEXT, PROSE, LISTED = 1.0, 0.6, 0.3, 0.03, 0.15, 0.5
PICK = 3.0  # the one answer of a context of candidates
BLIND = 0.6  # share of rows in which questions see facts only
LISTING = 0.5  # share of rows that ask for lists


@dataclasses.dataclass
class Question:
    """Words asked and answered; `first`: the number that the second word of a sum stands for."""
    asked: list
    answer: list
    first: str = ""
    weight: float = ANSWER


@dataclasses.dataclass
class Example:
    """One row of a batch: ids, labels and weights (0: no label), first token of each question."""
    ids: list
    labels: list
    weights: list
    positions: list
    starts: list
    context: int
    hidden: list = dataclasses.field(default_factory=list)  # tokens that no question sees


def _plans(rng, budget, fillings):
    """Plans of `fillings` fillings which together have at most `budget` words."""
    dittos, aliases, headings = (rng.random() < 0.45 for _ in range(3))
    alias_share = rng.choice((0.1, 0.3, 0.45))
    cost = 3 + (alias_share if aliases else 0) + (0.5 if headings else 0)
    even = max(1, min(int(budget / cost / fillings), len(language.NAMES) // fillings))
    lead_most = rng.choice((0.1, 0.3, 0.7))
    plans = []
    for number in range(fillings):
        count = even if rng.random() < 0.7 else rng.randint(max(1, even // 2), even)
        forms = ["plain"] * count
        if aliases:
            for place in range(count):
                if rng.random() < alias_share:
                    forms[place] = "alias" if number and rng.random() < 0.7 else "own-alias"
        if dittos:
            rate = rng.choice((0.05, 0.15))
            for place in range(count):
                if rng.random() < rate:
                    forms[place] = "ditto"
            if number and rng.random() < 0.8:
                lead = rng.randint(1, max(1, int(count * lead_most)))
                forms[:lead] = ["ditto"] * lead
        heads = set()
        if headings and rng.random() < 0.9:
            lead = rng.randint(0, max(1, int(count * lead_most)))
            heads = {lead} | {rng.randrange(count) for _ in range(rng.randint(0, 3))}
            heads = {place for place in heads if lead <= place < count}
        plans.append(Plan(forms, heads))
    return plans


def _question(rng, context, fact):
    """A question about a fact: what it offers, hard things more often."""
    offers = []
    if fact.form == "plain":
        offers.append((0.5, context.values, fact.value))
    else:
        crossing = fact.value_filling != fact.filling
        offers.append((3.0 if crossing else 1.5, context.values, fact.value))
    if fact.place:
        offers.append((1.5 if fact.place_filling != fact.filling else 0.7, "place", fact.place))
    if fact.voucher:
        offers.append((1.0, "voucher", fact.voucher))
    _, word, answer = rng.choices(offers, [offer[0] for offer in offers])[0]
    return Question([word, fact.name], [answer])


def _listing(rng, listed, most):
    """Asks for the facts of a filling in order, from one of them on, with at most `most` words."""
    first = 3 * rng.randrange(max(1, len(listed) // 3 - 1))
    words = listed[first:first + most]
    return Question(["list", words[0]], words[1:])


def _next(rng, listed):
    """One step of a list: the name behind a fact, or the end."""
    last = 3 * rng.randrange(max(1, len(listed) // 3 - 1))
    after = listed[last + 3:last + 4]
    return Question(["list"] + listed[last:last + 3], after) if after else Question(
        ["list", listed[last]], listed[last + 1:last + 2])


def _world(rng, budget, room):
    """A context of fillings with `room` words of questions."""
    vouchers = rng.random() < 0.6
    fillings = rng.randint(2, 6) if budget > 120 else rng.randint(1, 3)
    style = rng.choice(("grid", "free"))
    templates = contexts.templates(rng, fillings, style, vouchers)
    plans = _plans(rng, budget - sum(map(len, templates)), fillings)
    if vouchers and fillings > 1 and rng.random() < 0.2:  # a voucher holds until the next one
        which = rng.randrange(1, len(plans))
        templates[which] = [word for word in templates[which]
                            if word not in language.VOUCHERS and word != "vouches"]
    if rng.random() < 0.1:  # a filling right behind <bos>
        templates[0] = templates[0][:1]
    values = "number" if rng.random() < 0.2 else "colour"
    heading = rng.choice(language.PLACES) if rng.random() < 0.25 else None
    context = contexts.fill(rng, templates, plans, values, heading=heading)
    questions = []
    if rng.random() < LISTING:
        if room > 90 and rng.random() < 0.4:
            questions.append(_listing(rng, rng.choice(list(context.listed.values())), 75))
            room -= len(questions[-1].answer) + 2
        for _ in range(min(6, room // 10)):
            questions.append(_next(rng, rng.choice(list(context.listed.values()))))
            room -= 5
    hard = [fact for fact in context.facts if fact.form != "plain"
            or (fact.place and fact.place_filling != fact.filling)]
    while room >= 4:
        if values == "number" and rng.random() < 0.5:
            first, second = rng.sample(context.facts, 2) if len(context.facts) > 1 else (
                context.facts * 2)
            total = sum(language.NUMBERS.index(fact.value) for fact in (first, second))
            questions.append(Question(["sum", first.name, "plus", second.name],
                                      [language.NUMBERS[total]], first.value))
            room -= 4
            continue
        pool = hard if hard and rng.random() < 0.5 else context.facts
        questions.append(_question(rng, context, rng.choice(pool)))
        room -= 2
    return [word for piece in context.pieces for word in piece], questions, _held(rng, context)


def _judge(rng, budget, room):
    count = rng.randint(2, 5) if budget > 120 else 2
    noise = rng.randint(0, max(0, min(7, budget // (3 * count) - 4)))
    rule = rng.choice(("highest", "lowest"))
    templates = contexts.templates(rng, count, rng.choice(("grid", "free")), rng.random() < 0.3)
    first = templates[0]
    templates[0] = first[:1] + ["rule", rule, "wins", "."] + first[1:]
    scores = rng.sample(range(21), count)
    order = rng.sample(range(count), count)
    made, names = contexts.candidates(rng, templates, scores, noise, order)
    choose = max if rule == "highest" else min
    questions = [Question(["pick", "winner"], [names[scores.index(choose(scores))]], weight=PICK)]
    for asked, best in (("highest", max), ("lowest", min)):
        questions.append(Question(["pick", asked], [names[scores.index(best(scores))]]))
    for _ in range(3):
        pair = rng.sample(range(count), 2)
        wins = choose(pair, key=lambda one: scores[one])
        questions.append(Question(["pick"] + [names[one] for one in pair], [names[wins]]))
    words = [word for piece in made.pieces for word in piece]
    noted = [(words[i - 1], word) for i, word in enumerate(words) if word in _COLOURS]
    questions += [Question(["colour", name], [colour]) for name, colour in rng.sample(
        noted, min(len(noted), room // 2))]
    return words, questions, _best_so_far(words, choose)


def _best_so_far(words, choose):
    """{index: word}: at a candidate, who is best up to there."""
    found, best = {}, None
    for index, word in enumerate(words):
        if word == "score":
            one = (language.NUMBERS.index(words[index + 1]), words[index + 2])
            best = choose(best, one) if best else one
            found[index + 2] = best[1]
    return found


def _outside(words):
    """1 for all that is no fact: template words but <bos>, and headings."""
    # The first template may be <bos> alone.
    hidden, at = [0], 1
    template = words[1] not in _NAMES and words[1] not in ("alias", "at")
    while at < len(words):
        if template:
            step, hide, template = 1, True, words[at] != ":"
        elif words[at] == "at":
            step, hide = 3, True
        elif words[at] in _NAMES:
            step, hide = 3, False
        elif words[at] == "alias":
            step, hide = 4, False
        else:
            step, hide, template = 1, True, words[at] != ":"
        hidden += [int(hide)] * step
        at += step
    return hidden


def _held(rng, context):
    """{index: word}: at the value of a fact, the voucher or the place that holds for it.

    Where the value itself has to be looked up, that is told half of the time instead.
    """
    facts = {fact.name: fact for fact in context.facts}
    found, at, told = {}, 0, set()
    for number, piece in enumerate(context.pieces):
        for index, word in enumerate(piece):
            fact = facts.get(word) if number % 2 else None
            if fact and word not in told and fact.filling == number // 2:
                told.add(word)
                holds = [held for held in (fact.voucher, fact.place) if held]
                if holds and (fact.form == "plain" or rng.random() < 0.5):
                    found[at + index + 1] = rng.choice(holds)
        at += len(piece)
    return found


def _lookups(words):
    """{index: word}: at the last name of an alias line, the value that it stands for."""
    value, found = {}, {}
    latest = ""
    for index in range(2, len(words)):
        if words[index] != "." or words[index - 1] not in _VALUE_WORDS:
            continue
        name, said = words[index - 2], words[index - 1]
        if said == "ditto":
            said = latest
            found[index - 1] = said
        elif said in _NAMES:
            said = value.get(said, "")
            found[index - 1] = said
        value[name] = latest = said
    return found


_NAMES, _COLOURS = frozenset(language.NAMES), frozenset(language.COLOURS)
_VALUE_WORDS = _NAMES | _COLOURS | frozenset(language.NUMBERS) | {"ditto"}


def _lay_out(words, questions, held, length, hidden=()):
    ids = [ID[word] for word in words]
    labels = ids[1:] + [0]
    weights = [CONTEXT] * (len(ids) - 1) + [0.0]
    for index, word in _lookups(words).items():
        if word:
            labels[index], weights[index] = ID[word], LOOKUP
    for index, word in held.items():
        labels[index], weights[index] = ID[word], HOLDS
    context = len(ids)
    hidden = list(hidden)
    positions, starts = list(range(context)), [0] * context
    for question in questions:
        asked = question.asked
        line = [ID[word] for word in asked + question.answer]
        if len(ids) + len(line) - 1 > length:
            break
        begin = len(ids)
        for index in range(len(line) - 1):
            ids.append(line[index])
            answering = index >= len(asked) - 1
            labels.append(line[index + 1] if answering else 0)
            late = index >= len(asked)  # all of a long answer but its first word
            weights.append((LISTED if late else question.weight) if answering else 0.0)
            positions.append(context + index)
            starts.append(begin)
        if question.first:
            labels[begin + 1], weights[begin + 1] = ID[question.first], LOOKUP
    return Example(ids, labels, weights, positions, starts, context, hidden)


def _prose(rng, length):
    taken = prose.window("train", rng, length - 1)
    ids = [ID[language.BOS]] + [ID[word] for word in language.spell_exactly(taken)]
    return Example(ids, ids[1:] + [0], [PROSE] * (len(ids) - 1) + [0.0], list(range(len(ids))),
                   [0] * len(ids), len(ids))


def example(rng, length, prose_share=0.06, judge_share=0.15):
    """A row of at most `length` tokens."""
    kind = rng.random()
    if kind < prose_share:
        return _prose(rng, length)
    if kind < prose_share + judge_share:
        return _lay_out(*_judge(rng, length - 60, 40), length)
    room = rng.choice((32, 40)) if length < 200 else rng.choice((64, 100, 130))
    budget = length - room - 6
    if rng.random() < 0.2:
        budget = rng.randint(budget // 2, budget)
    while True:
        words, questions, held = _world(rng, budget, room)
        if len(words) <= length - room:
            hidden = _outside(words) if rng.random() < BLIND else ()
            return _lay_out(words, questions, held, length, hidden)
        budget -= 6


def pack(examples, length):
    """Rows padded to `length`, as lists: (ids, labels, weights, positions, starts, hidden,
    contexts)."""
    columns = [[], [], [], [], [], []]
    for row in examples:
        pad = length - len(row.ids)
        if pad < 0:
            raise ValueError("an example of %d tokens for rows of %d" % (len(row.ids), length))
        for column, values in zip(columns, (row.ids, row.labels, row.weights, row.positions,
                                            row.starts, row.hidden)):
            column.append(values + [0] * (length - len(values)))
    return columns + [[row.context for row in examples]]


def rng_of(seed, step):
    return random.Random("kedge-train %d %d" % (seed, step))
