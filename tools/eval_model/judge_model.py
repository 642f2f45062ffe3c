"""Accuracy of a model on the tasks: dense, with fillings computed alone, and two mask controls.

`none`: every filling is computed alone behind <bos> and only moved to its position; templates and
questions see everything. `blind-filling`: one dense pass in which fillings see themselves and <bos>
only. `blind-question`: questions see the fillings, <bos> and themselves only.
"""

import collections

import torch

import mix
import model
import tasks
from attention import KEY_HEADS, QUERY_HEADS, SIZE, Layout, attend, split

WAYS = ("dense", "none", "blind-filling", "blind-question")
MASKED = ("role", "alias", "ditto", "carry")  # tasks for the two mask controls
_KEYS_AT = QUERY_HEADS * SIZE


def rounded(weights):
    """What is shipped: weights rounded to bf16, in fp32."""
    return {name: value.detach().to(torch.bfloat16).float() for name, value in weights.items()}


class Row:
    """One context with its questions, as tokens; `filling[i]` is the filling of token i, or -1."""

    def __init__(self, record):
        self.ids, self.filling = [], []
        for number, piece in enumerate(record["pieces"]):
            words = [mix.ID[word] for word in piece["text"].split()]
            self.ids += words
            self.filling += [number if piece["kind"] == "filling" else -1] * len(words)
        self.context = len(self.ids)
        self.positions, self.starts = list(range(self.context)), [0] * self.context
        self.asked = []  # (tag, index of the last token before the answer, answer)
        for question in record["questions"]:
            asked = [mix.ID[word] for word in question["text"].split()]
            answer = [mix.ID[word] for word in question["answer"].split()]
            begin = len(self.ids)
            line = asked + answer[:-1]
            self.ids += line
            self.positions += [self.context + i for i in range(len(line))]
            self.starts += [begin] * len(line)
            self.asked.append((question["tag"], begin + len(asked) - 1, answer))
        if not self.asked:  # prose: the loss is over the last piece
            last = len(record["pieces"][-1]["text"].split())
            self.asked = [("prose", self.context - last - 1, self.ids[self.context - last:])]


def _layout(rows, length):
    def padded(name):
        return torch.tensor([getattr(row, name) + [0] * (length - len(row.ids)) for row in rows])

    return padded("ids"), Layout(torch.tensor([row.context for row in rows]), padded("starts"),
                                 padded("positions"))


def _alone(weights, rows):
    """For every layer the keys (not rotated) and values of each filling computed alone."""
    parts = []
    for number, row in enumerate(rows):
        for which in sorted(set(row.filling) - {-1}):
            where = [i for i, f in enumerate(row.filling) if f == which]
            parts.append((number, where))
    length = max(len(where) for _, where in parts) + 1
    ids = torch.zeros(len(parts), length, dtype=torch.long)
    for index, (number, where) in enumerate(parts):
        ids[index, 1:len(where) + 1] = torch.tensor([rows[number].ids[i] for i in where])
    ids[:, 0] = mix.ID[mix.language.BOS]
    layout = Layout(torch.full((len(parts),), length), torch.zeros(len(parts), length),
                    torch.arange(length).repeat(len(parts), 1))
    kept = []

    def attend_and_keep(qkv):
        kept.append(qkv[..., _KEYS_AT:].clone())
        return attend(*split(qkv, layout), layout.mask())

    x = torch.nn.functional.embedding(ids, weights["embed"])
    for layer in range(model.LAYERS):
        x = model.block(weights, layer, x, attend_and_keep, torch.float32)
    return parts, kept


def _mask(way, rows, layout):
    mask = layout.mask()
    if way not in ("blind-filling", "blind-question"):
        return mask
    mask = mask.clone()
    for number, row in enumerate(rows):
        filling = torch.full((mask.shape[-1],), -1)
        filling[:row.context] = torch.tensor(row.filling)
        if way == "blind-filling":
            same = filling[:, None] == filling[None, :]
            same[:, 0] = True
            mask[number, 0] &= same | (filling < 0)[:, None]
        else:
            open_to = (filling >= 0)
            open_to[0] = True
            open_to[row.context:] = True
            mask[number, 0, row.context:] &= open_to
    return mask


@torch.no_grad()
def hidden_states(weights, rows, way):
    length = max(len(row.ids) for row in rows)
    ids, layout = _layout(rows, length)
    mask = _mask(way, rows, layout)
    parts, kept = _alone(weights, rows) if way == "none" else ([], [])
    x = torch.nn.functional.embedding(ids, weights["embed"])
    for layer in range(model.LAYERS):
        def heads(qkv):
            for index, (number, where) in enumerate(parts):
                qkv[number, where, _KEYS_AT:] = kept[layer][index, 1:len(where) + 1]
            return attend(*split(qkv, layout), mask)

        x = model.block(weights, layer, x, heads, torch.float32)
    return model.norm(x, weights["norm"])


@torch.no_grad()
def score(weights, records, way, batch=6):
    """{tag: [right, asked]} with 'all'; for prose {'loss': [sum, characters]}.

    A question is right when every word of its answer is (each after the right words before it).
    For `long` also by position: p0 is words 0 to 15, p16 the next sixteen, and so on.
    """
    counts = collections.defaultdict(lambda: [0.0, 0])
    rows = sorted((Row(record) for record in records), key=lambda row: len(row.ids))
    for begin in range(0, len(rows), batch):
        part = rows[begin:begin + batch]
        hidden = hidden_states(weights, part, way)
        for number, row in enumerate(part):
            for tag, at, answer in row.asked:
                logits = model.logits(weights, hidden[number, at:at + len(answer)], torch.float32)
                wanted = torch.tensor(answer)
                if tag == "prose":
                    loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
                    counts["loss"][0] += float(loss)
                    counts["loss"][1] += len(answer)
                    continue
                right = (logits.argmax(-1) == wanted).tolist()
                for name in ("all", tag):
                    counts[name][0] += all(right)
                    counts[name][1] += 1
                if len(right) >= 64:
                    for index, one in enumerate(right):
                        counts["p%d" % (index // 16 * 16)][0] += one
                        counts["p%d" % (index // 16 * 16)][1] += 1
    return dict(counts)


def table(weights, split_name, contexts, names=tasks.TASKS, ways=WAYS):
    """Lines of a table: task, tag, questions, a column for each way; masks for some tasks only."""
    yield "%-8s %-10s %9s" % ("task", "tag", "questions") + "".join(" %14s" % w for w in ways)
    for task in names:
        records = [tasks.make(task, split_name, index) for index in range(contexts)]
        columns = [score(weights, records, way) if way in WAYS[:2] or task in MASKED else None
                   for way in ways]
        for tag in sorted(columns[0], key=lambda tag: (tag != "all", len(tag), tag)):
            asked = columns[0][tag][1]
            yield "%-8s %-10s %9d" % (task, tag, asked) + "".join(
                " %14.4f" % (column[tag][0] / asked) if column else " %14s" % "."
                for column in columns)
