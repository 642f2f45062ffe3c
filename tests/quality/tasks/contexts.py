"""Builds the context of a task: template pieces, fillings, and what is true of every fact.

A filling is a list of facts of three or four words:

    anna red .          her colour (or, in contexts of numbers, her number)
    carl ditto .        as the fact before him, also across the border of a filling
    alias emma anna .   the same as anna, who stands earlier
    at paris .          a heading: the place of all that follows until the next heading
    score seven ivo .   a candidate of `judge`

A template piece may name who vouches for the filling behind it: `mason vouches :`. Everything is
drawn from the `random.Random` that is handed in.
"""

import dataclasses

import language


@dataclasses.dataclass
class Fact:
    """One name's line, with the answers that follow from everything before it."""
    name: str
    filling: int
    index: int  # among the facts of its filling
    form: str  # plain, ditto or alias
    value: str  # colour or number, resolved
    value_filling: int  # where the word of the value stands
    place: str = ""
    place_filling: int = -1  # -1: in a template
    voucher: str = ""


@dataclasses.dataclass
class Context:
    """Words of every piece, fillings at odd indices, and the facts in order."""
    pieces: list = dataclasses.field(default_factory=list)
    facts: list = dataclasses.field(default_factory=list)
    values: str = "colour"
    listed: dict = dataclasses.field(default_factory=dict)  # filling: words with all resolved

    def length(self):
        return sum(len(piece) for piece in self.pieces)


@dataclasses.dataclass
class Plan:
    """What a filling holds: its facts in order, each a form, and headings before some of them."""
    forms: list
    headings: set


def grid_template(voucher):
    """A template of fixed length, with or without a voucher."""
    return ["agent", voucher, "vouches", ":"] if voucher else ["agent", "file", ":"]


def free_template(rng, voucher):
    """A template of filler words with the voucher somewhere among them."""
    words = [rng.choice(language.FILLER) for _ in range(rng.randint(1, 6))]
    if voucher:
        words += [voucher]
        words += [rng.choice(language.FILLER) for _ in range(rng.randint(0, 2))]
        words += ["vouches"]
        words += [rng.choice(language.FILLER) for _ in range(rng.randint(0, 3))]
    return words + [":"]


def templates(rng, count, style, vouchers):
    """`count` template pieces, the first with <bos>; style is grid or free; one voucher each."""
    names = rng.sample(language.VOUCHERS, count) if vouchers else [None] * count
    made = [grid_template(name) if style == "grid" else free_template(rng, name)
            for name in names]
    made[0] = [language.BOS] + made[0]
    return made


def voucher_of(template):
    for word in template:
        if word in _VOUCHERS:
            return word
    return ""


_VOUCHERS = frozenset(language.VOUCHERS)


def fill(rng, pieces, plans, values="colour", names=None, heading=None):
    """A Context from template pieces and one Plan for each filling.

    `names` are used up in order; without them they are drawn. `heading`: a place that holds from
    the first template on, appended to it.
    """
    context = Context(values=values)
    pool = language.COLOURS if values == "colour" else language.NUMBERS[:10]
    total = sum(len(plan.forms) for plan in plans)
    names = list(names or rng.sample(language.NAMES, total))
    places = rng.sample(language.PLACES, len(language.PLACES))
    place, place_filling = heading or "", -1
    known = []  # plain facts, which an alias may point to
    latest = None  # the latest fact, whatever its form: what a ditto repeats
    voucher = ""
    for number, (template, plan) in enumerate(zip(pieces, plans)):
        context.pieces.append(list(template))
        if number == 0 and heading:
            context.pieces[0] += ["at", heading, "."]
        voucher = voucher_of(template) or voucher
        words, listed = [], []
        for index, form in enumerate(plan.forms):
            if index in plan.headings:
                place = places[len(context.facts) % len(places)]
                place_filling = number
                words += ["at", place, "."]
            name = names[len(context.facts)]
            own = [fact for fact in known if fact.filling == number]
            other = [fact for fact in known if fact.filling != number]
            fact = Fact(name, number, index, form, "", number, place, place_filling, voucher)
            if form == "ditto" and latest is not None:
                words += [name, "ditto", "."]
                fact.value, fact.value_filling = latest.value, latest.value_filling
            elif form in ("alias", "own-alias") and (other if form == "alias" else own):
                target = rng.choice(other if form == "alias" else own)
                words += ["alias", name, target.name, "."]
                fact.form = "alias"
                fact.value, fact.value_filling = target.value, target.filling
            else:
                fact.form, fact.value = "plain", rng.choice(pool)
                words += [name, fact.value, "."]
                known.append(fact)
            latest = fact
            listed += [name, fact.value, "."]
            context.facts.append(fact)
        context.pieces.append(words)
        context.listed[number] = listed
    return context


def dilute(rng, words, length):
    """A filling's words with filler between its facts, `length` words together."""
    lines, at = [], 0
    for index, word in enumerate(words):
        if word == ".":
            lines.append(words[at:index + 1])
            at = index + 1
    gaps = [0] * (len(lines) + 1)
    for _ in range(length - len(words)):
        gaps[rng.randrange(len(gaps))] += 1
    diluted = []
    for gap, line in zip(gaps, lines + [[]]):
        diluted += [rng.choice(language.FILLER) for _ in range(gap)] + line
    return diluted


def candidates(rng, pieces, scores, noise, order):
    """A Context for `judge`: filling i holds candidate order[i] among `noise` other facts.

    The candidates' fillings are drawn before they are ordered, so another order has the same ones.
    """
    names = rng.sample(language.NAMES, len(scores) * (noise + 1))
    fillings = []
    for number, score in enumerate(scores):
        mine = names[number * (noise + 1):(number + 1) * (noise + 1)]
        lines = [[name, rng.choice(language.COLOURS), "."] for name in mine[1:]]
        lines.insert(rng.randint(0, noise), ["score", language.NUMBERS[score], mine[0], "."])
        fillings.append((mine[0], [word for line in lines for word in line]))
    context = Context()
    for template, which in zip(pieces, order):
        context.pieces += [list(template), fillings[which][1]]
    return context, [name for name, _ in fillings]
