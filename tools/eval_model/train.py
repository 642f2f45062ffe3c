"""Trains the evaluation model. See tests/quality/README.md for what it is for.

    tools/train_eval_model --seed 1 --out DIR [--steps N] [--resume]
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time

import torch

import judge_model
import mix
import model
import tasks
from attention import Layout, compiled

STEPS = 1400
TOKENS = 8192  # in a step
PARTS = 4  # of a step, computed apart
PEAK, LOWEST, WARM, DECAY, CLIP, BETAS = 2e-3, 0.03, 100, 0.01, 1.0, (0.9, 0.98)
VERSION = 1


def length_at(step, steps):
    """Rows begin short (recall is found there), then grow to all lengths that are evaluated."""
    share = step / steps
    for until, length in ((0.08, 96), (0.25, 128), (0.55, 256)):
        if share < until:
            return length
    return 512 if step % 2 else 256


def rate_at(step, steps):
    if step < WARM:
        return PEAK * (step + 1) / WARM
    share = (step - WARM) / max(1, steps - WARM)
    return PEAK * (LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * share)))


def batch_at(seed, step, steps, part):
    """(ids, labels, weights, layout) of one part of a step: the same whenever it is asked for."""
    length = length_at(step, steps)
    rng = mix.rng_of(seed, step * PARTS + part)
    rows = [mix.example(rng, length) for _ in range(max(1, TOKENS // PARTS // length))]
    ids, labels, weights, positions, starts, hidden, contexts = map(
        torch.tensor, mix.pack(rows, length))
    return ids, labels, weights, Layout(contexts, starts, positions, hidden)


def loss_of(weights, batch, library):
    """(sum of weighted losses, sum of weights, right answers, answers)."""
    ids, labels, amounts, layout = batch
    middle = []
    hidden = model.forward(weights, ids, layout, library, middle=middle)
    # What is looked up within a context has to be there early, for those who read it later on.
    early = (amounts == mix.LOOKUP) | (amounts == mix.HOLDS)
    kept = (amounts > 0) & ~early
    hidden = torch.cat([hidden[kept].float(), model.norm(middle[0][early], weights["norm"])])
    logits = model.logits(weights, hidden)
    wanted = torch.cat([labels[kept], labels[early]])
    amounts = torch.cat([amounts[kept], amounts[early]])
    each = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    answers = amounts == mix.ANSWER
    right = int((logits[answers].argmax(-1) == wanted[answers]).sum())
    return (each * amounts).sum(), float(amounts.sum()), right, int(answers.sum())


class Team:
    """Processes of one thread each that share weights and gradients, and meet once a step.

    A step's parts are taken by whoever is free and added up in a fixed order: the result does not
    depend on the number of processes or on what else the machine does.
    """

    def __init__(self, training, library, size):
        self.seed, self.steps = training.seed, training.steps
        self.weights, self.library = training.weights, library
        self.gradients = torch.zeros(PARTS, training.flat.numel()).share_memory_()
        self.sums = torch.zeros(PARTS, 4, dtype=torch.float64).share_memory_()
        context = multiprocessing.get_context("fork")
        self.open, self.done = context.SimpleQueue(), context.SimpleQueue()
        count = size if size > 1 else 0  # one alone computes in this process
        self.others = [context.Process(target=self._serve, daemon=True) for _ in range(count)]
        for other in self.others:
            other.start()

    def _serve(self):
        while True:
            try:
                self._compute(*self.open.get())
                self.done.put("")
            except Exception as error:  # said by the parent, which ends
                self.done.put("%s: %s" % (type(error).__name__, error))

    def _compute(self, step, part):
        batch = batch_at(self.seed, step, self.steps, part)
        loss, *counts = loss_of(self.weights, batch, self.library)
        parts = torch.autograd.grad(loss, list(self.weights.values()))
        torch.cat([part.reshape(-1) for part in parts], out=self.gradients[part])
        self.sums[part] = torch.tensor([float(loss)] + counts, dtype=torch.float64)

    def gradient(self, step):
        """(gradient of the mean loss, loss, share of right answers)."""
        for part in range(PARTS):
            if self.others:
                self.open.put((step, part))
            else:
                self._compute(step, part)
        if self.others:
            for _ in range(PARTS):
                failed = self.done.get()
                if failed:
                    raise RuntimeError(failed)
        loss, amount, right, answers = self.sums.sum(0).tolist()
        return self.gradients.sum(0) / amount, loss / amount, right / max(1, answers)


class Training:
    """Weights, AdamW, and how far they are."""

    def __init__(self, seed, steps):
        generator = torch.Generator().manual_seed(seed)
        self.seed, self.steps, self.step, self.seconds = seed, steps, 0, 0.0
        start = model.initial(len(mix.ID), mix.NUMBERS, generator)
        # In the order of model.shapes, which every process and checkpoint shares.
        self.flat = torch.cat([value.reshape(-1) for value in start.values()]).share_memory_()
        self.first, self.second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.decay = torch.cat([torch.full((value.numel(),), float(
            value.dim() == 2 and name != "embed")) for name, value in start.items()]) * DECAY
        self.weights, at = {}, 0
        for name, value in start.items():
            view = self.flat[at:at + value.numel()].view(value.shape)
            self.weights[name] = view.detach().requires_grad_()
            at += value.numel()

    def save(self, path):
        torch.save({"version": VERSION, "seed": self.seed, "steps": self.steps, "step": self.step,
                    "seconds": self.seconds, "flat": self.flat, "first": self.first,
                    "second": self.second}, path + ".part")
        os.replace(path + ".part", path)

    def load(self, path):
        state = torch.load(path)
        for name in ("seed", "steps"):
            if state[name] != getattr(self, name):
                raise ValueError("%s: %s is %s, asked for %s" % (
                    path, name, state[name], getattr(self, name)))
        for name in ("flat", "first", "second"):
            getattr(self, name).copy_(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    @torch.no_grad()
    def update(self, gradient):
        """AdamW, with the gradient's norm clipped."""
        length = float(gradient.norm())
        if length > CLIP:
            gradient = gradient * (CLIP / length)
        rate, time_ = rate_at(self.step, self.steps), self.step + 1
        self.first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = (self.second / (1 - BETAS[1] ** time_)).sqrt_().add_(1e-8)
        self.flat.sub_(self.flat * self.decay, alpha=rate)
        self.flat.addcdiv_(self.first, scale, value=-rate / (1 - BETAS[0] ** time_))

    def advance(self, team):
        """One step; returns loss and share of right answers."""
        began = time.monotonic()
        gradient, loss, right = team.gradient(self.step)
        self.update(gradient)
        self.step += 1
        self.seconds += time.monotonic() - began
        return loss, right


class Log:
    """Lines for people, on the screen and in a file that is kept."""

    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8")

    def __call__(self, line):
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()


def run(training, team, out, log, every):
    checkpoint = os.path.join(out, "checkpoint.pt")
    loss_sum, right_sum, since = 0.0, 0.0, time.monotonic()
    for _ in range(training.step, training.steps):
        loss, right = training.advance(team)
        loss_sum += loss
        right_sum += right
        if training.step % 50 == 0 or training.step == training.steps:
            count = (training.step - 1) % 50 + 1
            now = time.monotonic()
            log("step %5d  rows of %3d  loss %.4f  answers %.4f  %5.0f tokens/s  %6.0f s" % (
                training.step, length_at(training.step - 1, training.steps), loss_sum / count,
                right_sum / count, count * TOKENS / (now - since), training.seconds))
            loss_sum, right_sum, since = 0.0, 0.0, now
        if training.step % 200 == 0:
            training.save(checkpoint)
        if every and training.step % every == 0:
            for line in judge_model.table(judge_model.rounded(training.weights), "calibration", 12,
                                          ways=judge_model.WAYS[:2]):
                log(line)
            since = time.monotonic()
    training.save(checkpoint)


def write_model(training, out):
    """The Hugging Face directory."""
    words = mix.language.vocabulary()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(words),
        "hidden_size": model.WIDTH, "intermediate_size": model.INNER,
        "num_hidden_layers": model.LAYERS, "num_attention_heads": model.QUERY_HEADS,
        "num_key_value_heads": model.KEY_HEADS, "head_dim": model.SIZE, "hidden_act": "silu",
        "max_position_embeddings": 512, "rms_norm_eps": model.EPSILON, "rope_theta": model.THETA,
        "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 0,
        "eos_token_id": None, "use_cache": True,
    }
    special = [{"id": i, "content": words[i], "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True} for i in (0, 1)]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)},
                  "unk_token": mix.language.UNKNOWN},
    }
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast",
                        "bos_token": mix.language.BOS, "unk_token": mix.language.UNKNOWN,
                        "model_max_length": 512, "clean_up_tokenization_spaces": False}
    about = {"format": "kedge-eval-model", "version": VERSION, "seed": training.seed,
             "steps": training.steps, "tokens": training.steps * TOKENS,
             "train_seconds": round(training.seconds), "evaluated_tokens": 512,
             "tasks_version": tasks.VERSION, "task_seeds": tasks.SEEDS}
    for name, content in (("config.json", config), ("tokenizer.json", tokenizer),
                          ("tokenizer_config.json", tokenizer_config),
                          ("kedge_eval.json", about)):
        with open(os.path.join(out, name), "w", encoding="utf-8") as opened:
            json.dump(content, opened, indent=1, ensure_ascii=False)
            opened.write("\n")
    model.write_safetensors(os.path.join(out, "model.safetensors"),
                            model.to_hugging_face(training.weights))


def arguments():
    parser = argparse.ArgumentParser(prog="tools/train_eval_model",
                                     description="Trains the model of tests/quality.")
    parser.add_argument("--seed", type=int, required=True, help="1 and 2 are the shipped models")
    parser.add_argument("--out", required=True, help="folder for the model, its log, checkpoints")
    parser.add_argument("--steps", type=int, default=STEPS, help="of %d tokens" % TOKENS)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--workers", type=int, default=min(PARTS, os.cpu_count()), help="processes")
    parser.add_argument("--contexts", type=int, default=24, help="a task, in the last table")
    parser.add_argument("--every", type=int, default=0, help="steps between tables; 0: at the end")
    given = parser.parse_args()
    for name, least, most in (("seed", 0, 2 ** 31), ("steps", 1, 10 ** 6), ("workers", 1, PARTS),
                              ("contexts", 1, 10 ** 5), ("every", 0, 10 ** 6)):
        if not least <= getattr(given, name) <= most:
            parser.error("--%s %d: %d to %d" % (name, getattr(given, name), least, most))
    return given, parser


def main():
    given, parser = arguments()
    torch.set_num_threads(1)
    try:
        os.makedirs(given.out, exist_ok=True)
    except OSError as error:
        parser.error("--out %s: %s" % (given.out, error.strerror))
    training = Training(given.seed, given.steps)
    checkpoint = os.path.join(given.out, "checkpoint.pt")
    if given.resume:
        try:
            training.load(checkpoint)
        except (OSError, ValueError) as error:
            parser.error("--resume: %s" % error)
    elif os.path.exists(checkpoint):
        parser.error("--out %s: holds a checkpoint; give --resume or another folder" % given.out)
    log = Log(os.path.join(given.out, "train_log.txt"))
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(folder)
        log("seed %d, %d steps of %d tokens, %d parameters, torch %s, %s, from step %d" % (
            given.seed, given.steps, TOKENS, sum(v.numel() for v in training.weights.values()),
            torch.__version__, "AMX attention" if library else "plain attention", training.step))
        team = Team(training, library, given.workers)
        run(training, team, given.out, log, given.every)
    write_model(training, given.out)
    log("trained %d tokens in %.0f s; test split, weights rounded to bf16:" % (
        training.steps * TOKENS, training.seconds))
    named = model.read_safetensors(os.path.join(given.out, "model.safetensors"))
    for line in judge_model.table(model.from_hugging_face(named), "test", given.contexts):
        log(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
