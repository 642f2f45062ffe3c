"""The evaluation model in PyTorch: Llama's architecture, its start, and its files."""

import json
import math
import os
import struct

import torch
import torch.nn.functional as F

from attention import KEY_HEADS, QUERY_HEADS, SIZE, attention
from fused import AddNorm, SwiGlu

WIDTH, LAYERS, INNER, EPSILON, THETA = 128, 8, 256, 1e-5, 10000.0
MIDDLE = 4  # what a context's words have to look up is there before this layer
# Scales of the start (see initial): how sharply equal content is found; which layers and rotated
# pairs prefer what is near, and how much.
MATCH = 2.0
# The layer whose second group finds what follows in a list, how strong the copies are that it goes
# by, and how sharply it finds them.
FOLLOWS, COPIES, SHARP = 4, 2.0, 2.0
RECENT, RECENT_PAIRS, RECENT_STRENGTH = (1, 2, 3), slice(8, 20), 0.8


def shapes(vocabulary):
    """{name: shape} as trained; q, k and v of a layer are one matrix, gate and up another."""
    heads = QUERY_HEADS + 2 * KEY_HEADS
    named = {"embed": (vocabulary, WIDTH), "head": (vocabulary, WIDTH), "norm": (WIDTH,)}
    for layer in range(LAYERS):
        named["%d.norm1" % layer] = (WIDTH,)
        named["%d.norm2" % layer] = (WIDTH,)
        named["%d.qkv" % layer] = (heads * SIZE, WIDTH)
        named["%d.out" % layer] = (WIDTH, QUERY_HEADS * SIZE)
        named["%d.gate_up" % layer] = (2 * INNER, WIDTH)
        named["%d.down" % layer] = (WIDTH, INNER)
    return named


def initial(vocabulary, numbers, generator):
    """Fresh weights. A plain start does not find recall in the time there is; this one does.

    Embeddings have unit variance, one constant coordinate and one that grows along `numbers`, the
    ids of the words that count. In layer 0 the heads of the first group look one, one, two and
    three tokens back, whatever stands there, and write what they see, turned by random rotations:
    one for the first two, one for each of the others. In the later layers the keys of the first
    group read the first turned copy and its queries the token itself: a name attends to what once
    followed it. The second group prefers near tokens in three layers; in one, the stop behind a
    fact (its name is two back) attends to what once followed that fact (the name is three back); in
    the others equal tokens attend to each other. What a head reads it first writes as it is, and
    the output matrix starts as the embeddings.
    """
    def normal(*shape, scale):
        return torch.randn(*shape, generator=generator) * scale

    weights = {name: torch.ones(shape) for name, shape in shapes(vocabulary).items()}
    embed = normal(vocabulary, WIDTH, scale=1.0)
    embed[:, :2] = torch.tensor([2.0, 0.0])
    embed[numbers, 1] = torch.linspace(-2.0, 2.0, len(numbers))
    weights["embed"] = embed
    weights["head"] = embed / math.sqrt(WIDTH) * 0.5
    turn = torch.linalg.qr(normal(WIDTH, WIDTH, scale=1.0))[0]
    turns = [torch.linalg.qr(normal(WIDTH, WIDTH, scale=1.0))[0] for _ in range(2)]
    group = QUERY_HEADS // KEY_HEADS
    for layer in range(LAYERS):
        keys = normal(KEY_HEADS, SIZE, WIDTH, scale=WIDTH ** -0.5)
        values = normal(KEY_HEADS, SIZE, WIDTH, scale=WIDTH ** -0.5)
        out = values.repeat_interleave(group, 0).transpose(1, 2) * (0.5 / math.sqrt(group))
        out = out + normal(QUERY_HEADS, WIDTH, SIZE, scale=0.2 / math.sqrt(QUERY_HEADS * SIZE))
        if layer:
            keys[:, _fast_rows()] = 0.0
            keys *= MATCH
        queries = keys.repeat_interleave(group, 0).clone()
        if layer == 0:
            _look_back(keys, queries, group)
            out[:2] = turn @ values[0].T
            out[2:group] = torch.stack(turns) @ values[0].T * COPIES
        else:
            keys[0] = keys[0] @ turn.T
        if layer == FOLLOWS:
            queries[group:] = keys[1] @ turns[0].T * SHARP
            keys[1] = keys[1] @ turns[1].T * SHARP
        if layer in RECENT:
            keys[1] = normal(SIZE, WIDTH, scale=WIDTH ** -0.5)
            queries[group:] = normal(group, SIZE, WIDTH, scale=0.5 * WIDTH ** -0.5)
            keys[1, RECENT_PAIRS, 0] = RECENT_STRENGTH
            queries[group:, RECENT_PAIRS, 0] = RECENT_STRENGTH
        weights["%d.qkv" % layer] = torch.cat([queries, keys, values]).reshape(-1, WIDTH)
        weights["%d.out" % layer] = out.permute(1, 0, 2).reshape(WIDTH, -1)
        weights["%d.gate_up" % layer] = normal(2 * INNER, WIDTH, scale=WIDTH ** -0.5)
        weights["%d.down" % layer] = normal(WIDTH, INNER, scale=0.3 * INNER ** -0.5)
    return weights


def _fast_rows():
    """Rows of a key head whose rotation tells near positions apart: useless to match content."""
    return [i for i in range(SIZE) if i % (SIZE // 2) < 16]


def _look_back(keys, queries, group):
    """Heads of the first group attend 1, 1, 2 and 3 tokens back, whatever stands there."""
    half, used, strength = SIZE // 2, 8, 3.5  # the fastest pairs, which tell neighbours apart
    angle = THETA ** (-torch.arange(half) * 2.0 / SIZE)
    keys[0] = 0.0
    keys[0, :used, 0] = strength
    for head, distance in zip(range(group), (1, 1, 2, 3)):
        # A query turned back by `distance` meets keys of that distance unturned.
        queries[head] = 0.0
        queries[head, :used, 0] = strength * torch.cos(angle[:used] * -distance)
        queries[head, half:half + used, 0] = strength * torch.sin(angle[:used] * -distance)


def norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight


def block(weights, layer, x, attend, kind):
    """One layer; `attend` takes qkv and gives what the heads read."""
    def linear(value, name):
        return F.linear(value.to(kind), weights["%d.%s" % (layer, name)].to(kind))

    qkv = linear(norm(x, weights["%d.norm1" % layer]), "qkv")
    x = x + linear(attend(qkv), "out").float()
    gate, up = linear(norm(x, weights["%d.norm2" % layer]), "gate_up").chunk(2, -1)
    return x + linear(F.silu(gate) * up, "down").float()


def _fast_forward(weights, ids, layout, library, middle):
    narrow = {name: value.to(torch.bfloat16) for name, value in weights.items() if value.dim() == 2}
    x, delta = F.embedding(ids, weights["embed"]), None
    for layer in range(LAYERS):
        at = "%d." % layer
        x, read = AddNorm.apply(x, delta, weights[at + "norm1"], EPSILON, library)
        if layer == MIDDLE:
            middle.append(x)
        heads = attention(F.linear(read, narrow[at + "qkv"]), layout, library)
        delta = F.linear(heads, narrow[at + "out"])
        x, read = AddNorm.apply(x, delta, weights[at + "norm2"], EPSILON, library)
        inner = SwiGlu.apply(F.linear(read, narrow[at + "gate_up"]), library)
        delta = F.linear(inner, narrow[at + "down"])
    return AddNorm.apply(x, delta, weights["norm"], EPSILON, library)[1]


def forward(weights, ids, layout, library=None, kind=torch.bfloat16, middle=None):
    """Hidden states [batch, tokens, width] after the last norm; through the C parts if given.

    The residual before layer MIDDLE, not normalised, is appended to the list `middle`.
    """
    middle = [] if middle is None else middle
    if library is not None:
        return _fast_forward(weights, ids, layout, library, middle)
    x = F.embedding(ids, weights["embed"])
    for layer in range(LAYERS):
        if layer == MIDDLE:
            middle.append(x)
        x = block(weights, layer, x, lambda qkv: attention(qkv, layout), kind)
    return norm(x, weights["norm"])


def logits(weights, hidden, kind=torch.bfloat16):
    return F.linear(hidden.to(kind), weights["head"].to(kind)).float()


def to_hugging_face(weights):
    """{name: tensor} as LlamaForCausalLM names them."""
    named = {"model.embed_tokens.weight": weights["embed"], "model.norm.weight": weights["norm"],
             "lm_head.weight": weights["head"]}
    for layer in range(LAYERS):
        prefix = "model.layers.%d." % layer
        q, k, v = weights["%d.qkv" % layer].split(
            [QUERY_HEADS * SIZE, KEY_HEADS * SIZE, KEY_HEADS * SIZE])
        gate, up = weights["%d.gate_up" % layer].chunk(2)
        for name, value in (("self_attn.q_proj", q), ("self_attn.k_proj", k),
                            ("self_attn.v_proj", v),
                            ("self_attn.o_proj", weights["%d.out" % layer]),
                            ("mlp.gate_proj", gate), ("mlp.up_proj", up),
                            ("mlp.down_proj", weights["%d.down" % layer]),
                            ("input_layernorm", weights["%d.norm1" % layer]),
                            ("post_attention_layernorm", weights["%d.norm2" % layer])):
            named[prefix + name + ".weight"] = value
    return named


def from_hugging_face(named):
    """The inverse of to_hugging_face, in fp32."""
    named = {name: value.float() for name, value in named.items()}
    weights = {"embed": named["model.embed_tokens.weight"], "norm": named["model.norm.weight"],
               "head": named["lm_head.weight"]}
    for layer in range(LAYERS):
        part = {name: named["model.layers.%d.%s.weight" % (layer, name)] for name in (
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
            "post_attention_layernorm")}
        weights["%d.qkv" % layer] = torch.cat(
            [part["self_attn.q_proj"], part["self_attn.k_proj"], part["self_attn.v_proj"]])
        weights["%d.out" % layer] = part["self_attn.o_proj"]
        weights["%d.gate_up" % layer] = torch.cat([part["mlp.gate_proj"], part["mlp.up_proj"]])
        weights["%d.down" % layer] = part["mlp.down_proj"]
        weights["%d.norm1" % layer] = part["input_layernorm"]
        weights["%d.norm2" % layer] = part["post_attention_layernorm"]
    return weights


def write_safetensors(path, named):
    """bf16 tensors in the safetensors format: length of the header, header (JSON), bytes."""
    header, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(named):
        value = named[name].detach().to(torch.bfloat16).contiguous()
        data = value.view(torch.int16).numpy().astype("<i2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(value.shape),
                        "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        opened.writelines(parts)
    os.replace(path + ".part", path)


def read_safetensors(path):
    """{name: bf16 tensor}. Reads what write_safetensors writes."""
    with open(path, "rb") as opened:
        size = struct.unpack("<Q", opened.read(8))[0]
        header = json.loads(opened.read(size))
        data = bytearray(opened.read())
    named = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data, dtype=torch.int16, count=(end - begin) // 2, offset=begin)
        named[name] = flat.clone().view(torch.bfloat16).view(entry["shape"])
    return named
