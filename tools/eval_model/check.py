#!/usr/bin/python3
"""Compares attention.c and elementwise.c with plain PyTorch: loss and every gradient of one batch.

    tools/eval_model/check.py        exits 1 where they differ, 77 where the CPU has no AMX
"""

import sys
import tempfile

import torch

import attention
import mix
import model
import train

WORST = 0.2  # of a gradient's norm: both round to bf16 in many places, and much cancels


def gradients(weights, batch, library):
    loss = train.loss_of(weights, batch, library)[0]
    return float(loss), dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        library = attention.compiled(folder)
        if library is None:
            print("check.py: no AMX here, or no gcc")
            return 77
        weights = model.initial(len(mix.ID), mix.NUMBERS, torch.Generator().manual_seed(1))
        for value in weights.values():
            value.requires_grad_()
        worst = 0.0
        for step in (0, 150, 500, 901):  # rows of 96, 128, 256 and 512
            batch = train.batch_at(1, step, 1000, 0)
            fast, got = gradients(weights, batch, library)
            plain, wanted = gradients(weights, batch, None)
            print("rows of %d: loss %.3f and %.3f" % (batch[0].shape[1], fast, plain))
            if abs(fast - plain) > 1e-3 * abs(plain):
                return 1
            for name, value in wanted.items():
                share = float((got[name] - value).norm() / value.norm().clamp_min(1e-9))
                worst = max(worst, share)
                if share > WORST:
                    print("%s: gradients differ by %.3f of their norm" % (name, share))
        print("gradients differ by %.4f of their norm at most" % worst)
        return int(worst > WORST)


if __name__ == "__main__":
    sys.exit(main())
