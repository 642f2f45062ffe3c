#!/usr/bin/python3
"""Makes tiny random Llama and Qwen2 checkpoints and the logits that PyTorch computes from them.

    tests/golden/make_golden.py        rewrites tests/golden/data

The forward pass is written here from the definition of the architectures, in plain PyTorch and
fp32, so that it shares no code with the runner. Needs Debian's python3-torch. Weights come from a
seeded NumPy generator: the checkpoints are the same bytes on every machine, the logits up to
rounding.
"""

import json
import math
import os
import shutil
import struct

import numpy as np
import torch

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
TOKENS = 68  # passes the border of a block of 64, and two of 32

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "eos_token_id": 1,
}
LLAMA = dict(SMALL, architectures=["LlamaForCausalLM"], model_type="llama", bos_token_id=0)
QWEN2 = dict(SMALL, architectures=["Qwen2ForCausalLM"], model_type="qwen2", rope_theta=1e6,
             rms_norm_eps=1e-6, use_sliding_window=False)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}

# name: config, number of shards
CHECKPOINTS = {
    "llama_f32": (dict(LLAMA, torch_dtype="float32", tie_word_embeddings=False,
                       rope_theta=10000.0, rope_scaling=LLAMA3_ROPE), 1),
    "llama_bf16_sharded": (dict(LLAMA, torch_dtype="bfloat16", tie_word_embeddings=False,
                                rope_theta=500000.0), 2),
    "qwen2_f32": (dict(QWEN2, torch_dtype="float32", tie_word_embeddings=True), 1),
    "qwen2_f16": (dict(QWEN2, torch_dtype="float16", tie_word_embeddings=False), 1),
}
TORCH_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FILE_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def random_weights(config, seed):
    """All tensors of a checkpoint, rounded to its dtype."""
    generator = np.random.Generator(np.random.PCG64(seed))
    dtype = TORCH_TYPES[config["torch_dtype"]]
    hidden, head = config["hidden_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    mlp, vocabulary = config["intermediate_size"], config["vocab_size"]
    weights = {}

    def add(name, shape, centre, deviation):
        values = centre + deviation * generator.standard_normal(shape)
        weights[name] = torch.from_numpy(values.astype(np.float32)).to(dtype)

    def matrix(name, outputs, inputs, bias=False):
        add(name + ".weight", (outputs, inputs), 0.0, 1.5 / math.sqrt(inputs))
        if bias:
            add(name + ".bias", (outputs,), 0.0, 0.5)

    qkv_bias = config["model_type"] == "qwen2"
    add("model.embed_tokens.weight", (vocabulary, hidden), 0.0, 0.5)
    for layer in range(config["num_hidden_layers"]):
        prefix = "model.layers.%d." % layer
        add(prefix + "input_layernorm.weight", (hidden,), 1.0, 0.2)
        matrix(prefix + "self_attn.q_proj", heads * head, hidden, qkv_bias)
        matrix(prefix + "self_attn.k_proj", kv_heads * head, hidden, qkv_bias)
        matrix(prefix + "self_attn.v_proj", kv_heads * head, hidden, qkv_bias)
        matrix(prefix + "self_attn.o_proj", hidden, heads * head)
        add(prefix + "post_attention_layernorm.weight", (hidden,), 1.0, 0.2)
        matrix(prefix + "mlp.gate_proj", mlp, hidden)
        matrix(prefix + "mlp.up_proj", mlp, hidden)
        matrix(prefix + "mlp.down_proj", hidden, mlp)
    add("model.norm.weight", (hidden,), 1.0, 0.2)
    if not config["tie_word_embeddings"]:
        matrix("lm_head", vocabulary, hidden)
    return weights


def rms_norm(x, weight, epsilon):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon))


def rope_frequencies(config):
    head = config["head_dim"]
    frequencies = 1.0 / (config["rope_theta"] ** (torch.arange(0, head, 2).float() / head))
    scaling = config.get("rope_scaling")
    if scaling is None:
        return frequencies
    original = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    result = []
    for frequency in frequencies.tolist():
        wavelength = 2 * math.pi / frequency
        blend = (original / wavelength - low) / (high - low)
        blend = min(max(blend, 0.0), 1.0)  # 1: keep, 0: stretch
        result.append((1 - blend) * frequency / scaling["factor"] + blend * frequency)
    return torch.tensor(result, dtype=torch.float32)


def rotate(x, cos, sin):
    """x is [tokens, heads, head_dim]."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None, :] + turned * sin[:, None, :]


def forward(config, weights, tokens):
    """Logits [tokens, vocabulary] of a whole sequence, fp32."""
    weights = {name: tensor.float() for name, tensor in weights.items()}
    count = len(tokens)
    head = config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    epsilon = config["rms_norm_eps"]
    angles = torch.outer(torch.arange(count).float(), rope_frequencies(config))
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos(), angles.sin()
    hidden_later = torch.full((count, count), float("-inf")).triu(1)

    def linear(x, name):
        return torch.nn.functional.linear(x, weights[name + ".weight"], weights.get(name + ".bias"))

    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = "model.layers.%d." % layer
        normed = rms_norm(x, weights[prefix + "input_layernorm.weight"], epsilon)
        q = linear(normed, prefix + "self_attn.q_proj").view(count, heads, head)
        k = linear(normed, prefix + "self_attn.k_proj").view(count, kv_heads, head)
        v = linear(normed, prefix + "self_attn.v_proj").view(count, kv_heads, head)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k = k.repeat_interleave(heads // kv_heads, dim=1)
        v = v.repeat_interleave(heads // kv_heads, dim=1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(head) + hidden_later
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
        x = x + linear(mixed.reshape(count, heads * head), prefix + "self_attn.o_proj")
        normed = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], epsilon)
        gate = torch.nn.functional.silu(linear(normed, prefix + "mlp.gate_proj"))
        x = x + linear(gate * linear(normed, prefix + "mlp.up_proj"), prefix + "mlp.down_proj")
    x = rms_norm(x, weights["model.norm.weight"], epsilon)
    if config["tie_word_embeddings"]:
        return x @ weights["model.embed_tokens.weight"].T
    return linear(x, "lm_head")


def tensor_bytes(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().astype("<i2").tobytes()
    return tensor.numpy().tobytes()


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor_bytes(tensor)
        header[name] = {"dtype": FILE_TYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, sort_keys=True)
        out.write("\n")


def write_checkpoint(directory, config, weights, shards):
    os.makedirs(directory)
    write_json(os.path.join(directory, "config.json"), config)
    if shards == 1:
        write_safetensors(os.path.join(directory, "model.safetensors"), weights)
        return
    names = list(weights)
    weight_map = {}
    for shard in range(shards):
        part = names[len(names) * shard // shards:len(names) * (shard + 1) // shards]
        file = "model-%05d-of-%05d.safetensors" % (shard + 1, shards)
        write_safetensors(os.path.join(directory, file), {name: weights[name] for name in part})
        weight_map.update({name: file for name in part})
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    write_json(os.path.join(directory, "model.safetensors.index.json"),
               {"metadata": {"total_size": size}, "weight_map": weight_map})


def main():
    torch.set_num_threads(1)
    shutil.rmtree(DATA, ignore_errors=True)
    for seed, (name, (config, shards)) in enumerate(CHECKPOINTS.items(), 1):
        directory = os.path.join(DATA, name)
        weights = random_weights(config, seed)
        write_checkpoint(directory, config, weights, shards)
        generator = np.random.Generator(np.random.PCG64(100 + seed))
        tokens = generator.integers(0, config["vocab_size"], TOKENS).tolist()
        with torch.no_grad():
            logits = forward(config, weights, torch.tensor(tokens))
        write_json(os.path.join(directory, "tokens.json"), {"tokens": tokens})
        write_safetensors(os.path.join(directory, "logits.safetensors"), {"logits": logits})
        print("%-20s logits %.2f to %.2f" % (name, logits.min(), logits.max()))


if __name__ == "__main__":
    main()
