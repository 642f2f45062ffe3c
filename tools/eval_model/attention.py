"""Attention of a training batch: attention.c where the CPU has AMX, else plain PyTorch.

Both compute the same up to rounding. A sequence is a context with questions behind it; every
question sees the context and itself (see attention.c).
"""

import ctypes
import os
import subprocess

import torch

QUERY_HEADS, KEY_HEADS, SIZE = 8, 2, 64
_FLAGS = ["-O3", "-march=sapphirerapids", "-mamx-tile", "-mamx-bf16", "-fopenmp", "-shared",
          "-fPIC"]


def compiled(folder):
    """attention.c and elementwise.c, built into `folder` and loaded; None where they cannot run."""
    try:
        with open("/proc/cpuinfo", encoding="ascii") as opened:
            if "amx_bf16" not in opened.read():
                return None
        here = os.path.dirname(os.path.abspath(__file__))
        sources = [os.path.join(here, name) for name in ("attention.c", "elementwise.c")]
        path = os.path.join(folder, "eval_model.so")
        subprocess.run(["gcc"] + _FLAGS + sources + ["-o", path, "-lm"], check=True)
        library = ctypes.CDLL(path)
    except (OSError, subprocess.CalledProcessError):
        return None
    return library if library.kedge_attention_init() == 0 else None


def _pointers(*tensors):
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


class _Fast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, layout, library):
        batch, tokens = qkv.shape[:2]
        out = torch.empty(batch, tokens, QUERY_HEADS * SIZE, dtype=torch.bfloat16)
        lse = torch.empty(batch, QUERY_HEADS, tokens)
        where = _pointers(layout.context, layout.start, layout.hidden, layout.cosine, layout.sine)
        library.kedge_attention_forward(*_pointers(qkv), batch, tokens, *where,
                                        *_pointers(out, lse))
        ctx.save_for_backward(qkv, out, lse)
        ctx.layout, ctx.library = layout, library
        return out

    @staticmethod
    def backward(ctx, gradient):
        qkv, out, lse = ctx.saved_tensors
        batch, tokens = qkv.shape[:2]
        layout = ctx.layout
        gradient = gradient.contiguous()
        result = torch.empty_like(qkv)
        where = _pointers(layout.context, layout.start, layout.hidden, layout.cosine, layout.sine)
        ctx.library.kedge_attention_backward(*_pointers(qkv), batch, tokens, *where,
                                             *_pointers(out, gradient, lse, result))
        return result, None, None


class Layout:
    """What a batch's tokens may see, and where they stand.

    context: [batch] int32, tokens of the context; start: [batch, tokens] int32, the first token of
    the question that a token belongs to (0 in the context); positions: [batch, tokens]; hidden:
    [batch, tokens], 1 where questions must not look (in the context only).
    """

    def __init__(self, context, start, positions, hidden=None, theta=10000.0):
        self.context = context.to(torch.int32).contiguous()
        self.start = start.to(torch.int32).contiguous()
        hidden = torch.zeros_like(self.start) if hidden is None else hidden
        self.hidden = hidden.to(torch.int32).contiguous()
        frequency = theta ** (-torch.arange(0, SIZE, 2, dtype=torch.float32) / SIZE)
        angle = positions.float()[:, :, None] * frequency
        self.cosine, self.sine = angle.cos().contiguous(), angle.sin().contiguous()
        self._mask = None

    def mask(self):
        """[batch, 1, tokens, tokens], true where the row may see the column."""
        if self._mask is None:
            tokens = self.start.shape[1]
            index = torch.arange(tokens)
            causal = index[None, :] <= index[:, None]
            shared = index[None, None, :] < self.context[:, None, None]
            own = index[None, None, :] >= self.start[:, :, None]
            shown = (self.hidden == 0)[:, None, :] | (self.start == 0)[:, :, None]
            self._mask = (causal & (shared | own) & shown)[:, None]
        return self._mask


def rotate(x, cosine, sine):
    """Llama's rotation of the last dimension, in halves; cosine and sine broadcast over heads."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def split(qkv, layout):
    """qkv as (queries, keys, values), heads second, queries and keys rotated."""
    batch, tokens = qkv.shape[:2]
    heads = qkv.view(batch, tokens, -1, SIZE).transpose(1, 2)
    cosine, sine = layout.cosine[:, None], layout.sine[:, None]
    q, k, v = heads.split([QUERY_HEADS, KEY_HEADS, KEY_HEADS], 1)
    return rotate(q.float(), cosine, sine), rotate(k.float(), cosine, sine), v


def attend(q, k, v, mask):
    """Softmax attention with grouped heads; returns [batch, tokens, heads * size]."""
    repeat = QUERY_HEADS // KEY_HEADS
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = (q @ k.transpose(2, 3)) / SIZE ** 0.5
    scores = scores.masked_fill(~mask, float("-inf"))
    out = torch.softmax(scores, -1).to(v.dtype) @ v
    return out.transpose(1, 2).reshape(out.shape[0], out.shape[2], -1)


def attention(qkv, layout, library=None):
    """[batch, tokens, 12 * 64] to [batch, tokens, 8 * 64]."""
    if library is not None and qkv.dtype == torch.bfloat16:
        return _Fast.apply(qkv, layout, library)
    q, k, v = split(qkv, layout)
    return attend(q, k, v, layout.mask()).to(qkv.dtype)
