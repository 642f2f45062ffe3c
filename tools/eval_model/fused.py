"""The C parts of training as autograd functions: add and normalise, SwiGLU (elementwise.c)."""

import ctypes

import torch

PARTS = 16  # shares of the rows; the order of a sum does not depend on the number of threads


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr() if tensor is not None else None)


class AddNorm(torch.autograd.Function):
    """(x + delta, RMSNorm(x + delta) * weight in bf16); x fp32, delta bf16 or None."""

    @staticmethod
    def forward(ctx, x, delta, weight, epsilon, library):
        width = x.shape[-1]
        rows = x.numel() // width
        total = torch.empty_like(x)
        normed = torch.empty(x.shape, dtype=torch.bfloat16)
        scale = torch.empty(rows)
        library.kedge_norm_forward(pointer(x), pointer(delta), pointer(weight),
                                   ctypes.c_float(epsilon), ctypes.c_long(rows), width,
                                   pointer(total), pointer(normed), pointer(scale))
        ctx.save_for_backward(total, weight, scale)
        ctx.library, ctx.with_delta = library, delta is not None
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    def backward(ctx, dtotal, dnormed):
        total, weight, scale = ctx.saved_tensors
        width = total.shape[-1]
        rows = total.numel() // width
        dtotal = dtotal.contiguous() if dtotal is not None else None
        dnormed = dnormed.contiguous()
        dx = torch.empty_like(total)
        narrow = torch.empty(total.shape, dtype=torch.bfloat16) if ctx.with_delta else None
        dweight = torch.empty(PARTS, width)
        ctx.library.kedge_norm_backward(
            pointer(total), pointer(weight), pointer(scale), pointer(dtotal), pointer(dnormed),
            ctypes.c_long(rows), width, PARTS, pointer(dx), pointer(narrow), pointer(dweight))
        return dx, narrow, dweight.sum(0), None, None


class SwiGlu(torch.autograd.Function):
    """silu(first half) * second half of the last dimension, bf16."""

    @staticmethod
    def forward(ctx, both, library):
        inner = both.shape[-1] // 2
        out = torch.empty(*both.shape[:-1], inner, dtype=torch.bfloat16)
        library.kedge_swiglu_forward(pointer(both), ctypes.c_long(out.numel() // inner), inner,
                                     pointer(out))
        ctx.save_for_backward(both)
        ctx.library = library
        return out

    @staticmethod
    def backward(ctx, dout):
        both, = ctx.saved_tensors
        inner = both.shape[-1] // 2
        dout, dboth = dout.contiguous(), torch.empty_like(both)
        ctx.library.kedge_swiglu_backward(pointer(both), pointer(dout),
                                          ctypes.c_long(dout.numel() // inner), inner,
                                          pointer(dboth))
        return dboth, None
