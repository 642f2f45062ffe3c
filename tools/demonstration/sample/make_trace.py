#!/usr/bin/env python3
"""Writes trace.jsonl: a made-up request trace in the format of Mooncake's conversation trace.

Users open conversations behind a shared system prompt, and come back with longer ones. Seeded: the
same file every time. Usage: make_trace.py > trace.jsonl
"""
import json
import random

BLOCK_TOKENS = 512
REQUESTS = 60
SEED = 20240601


def main():
    chance = random.Random(SEED)
    next_id = 1
    conversations = []  # [ids of whole blocks, tokens so far]
    timestamp = 0
    for _ in range(REQUESTS):
        timestamp += int(chance.expovariate(1 / 350))
        if conversations and chance.random() < 0.45:
            conversation = chance.choice(conversations[-12:])
        else:
            conversation = [[0], BLOCK_TOKENS]  # the shared system prompt is one block
            conversations.append(conversation)
        conversation[1] += int(chance.lognormvariate(7.6, 0.8)) + 1
        ids, length = conversation
        while (len(ids) + 1) * BLOCK_TOKENS <= length:
            ids.append(next_id)
            next_id += 1
        hash_ids = list(ids)
        if length % BLOCK_TOKENS:  # the tail's id is of this request alone
            hash_ids.append(next_id)
            next_id += 1
        output_length = int(chance.lognormvariate(5.3, 0.7)) + 1
        print(json.dumps({"timestamp": timestamp, "input_length": length,
                          "output_length": output_length, "hash_ids": hash_ids}))
        conversation[1] += output_length


if __name__ == "__main__":
    main()
