#!/usr/bin/python3
"""Answers of the shipped models to the test tasks, as PyTorch computes them.

    tests/quality/golden/make_answers.py [NAME...]     rewrites NAME.json and NAME.safetensors here

For the first contexts of every task: the most likely token before every token of every answer
(greedy decoding gives the answer exactly when all of them are its tokens), and the logits behind
some of the questions. The forward pass is that of tests/golden/make_golden.py: plain PyTorch in
fp32, no code of the runner. Needs Debian's python3-torch.
"""

import json
import os
import struct
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
QUALITY = os.path.dirname(HERE)
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(QUALITY, "tasks"))
sys.path.insert(0, os.path.join(os.path.dirname(QUALITY), "golden"))

import make_golden  # noqa: E402
import tasks  # noqa: E402

CONTEXTS = 10  # of each task; at least 500 questions in all
LOGITS_EVERY = 12  # questions of which the logits are kept
TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def read_safetensors(path):
    with open(path, "rb") as opened:
        data = opened.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        raw = bytearray(data[8 + size + begin:8 + size + end])
        tensors[name] = torch.frombuffer(raw, dtype=TYPES[info["dtype"]]).reshape(info["shape"])
    return tensors


def read_json(path):
    with open(path, encoding="utf-8") as opened:
        return json.load(opened)


def answers(directory):
    """Yields (id, index of the question, most likely tokens, logits)."""
    config = read_json(os.path.join(directory, "config.json"))
    weights = read_safetensors(os.path.join(directory, "model.safetensors"))
    weights = {name: tensor.float() for name, tensor in weights.items()}
    words = read_json(os.path.join(directory, "tokenizer.json"))["model"]["vocab"]
    for task in tasks.TASKS:
        for index in range(CONTEXTS):
            context = tasks.make(task, "test", index)
            text = " ".join(piece["text"] for piece in context["pieces"])
            for number, question in enumerate(context["questions"]):
                length = len(question["answer"].split())
                line = " ".join((text, question["text"], question["answer"]))
                tokens = torch.tensor([words[word] for word in line.split()])
                logits = make_golden.forward(config, weights, tokens[:-1])[-length:]
                yield context["id"], number, logits.argmax(-1).tolist(), logits


def main():
    torch.set_num_threads(1)
    models = os.path.join(QUALITY, "models")
    for name in sys.argv[1:] or sorted(os.listdir(models)):
        listed, kept, rows = [], [], []
        with torch.no_grad():
            for context, number, tokens, logits in answers(os.path.join(models, name)):
                if len(listed) % LOGITS_EVERY == 0:
                    kept.append(len(listed))
                    rows.append(logits[:1])
                listed.append([context, number, tokens])
        with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as out:
            head = {"contexts": CONTEXTS, "tasks_version": tasks.VERSION, "logits_of": kept}
            out.write(json.dumps(head)[:-1] + ', "answers": [\n')
            out.write(",\n".join(json.dumps(line) for line in listed) + "\n]}\n")
        make_golden.write_safetensors(os.path.join(HERE, name + ".safetensors"),
                                      {"logits": torch.cat(rows)})
        print("%s: %d questions, logits of %d" % (name, len(listed), len(rows)))


if __name__ == "__main__":
    main()
