"""Rounding that training can pass: QuantizeLinear followed by DequantizeLinear, with straight-through gradients.

Forward as ONNX says: round half to even, then saturate. Backward, a value inside the range gets the gradient as if it had not
been rounded, one outside gets none (Bengio et al., 2013). The scale gets that of LSQ (Esser et al., ICLR 2020): each element
adds its rounding error in steps, or outside the range its limit, times the gradient that arrives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def fake_quantize(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """scale · clamp(round(x / scale), low, high), for one scale of all elements.

    The limits are those of the integer type less the zero point: an offset by whole numbers changes nothing else.
    """
    result: Tensor = _FakeQuantize.apply(x, scale, low, high)  # type: ignore[no-untyped-call]
    return result


def round_through(x: Tensor) -> Tensor:
    """Whole numbers, half to even; the gradient passes as if nothing had been rounded. Exact: r − x is, for all x near r."""
    return x + (x.round() - x).detach()


class _FakeQuantize(torch.autograd.Function):
    # Few passes over memory: training is bound by them, and a network has one of these for each layer.

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        result = (x / scale).round_().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x, scale, result if ctx.needs_input_grad[1] else None)
        ctx.limits = low, high
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, result = ctx.saved_tensors
        low, high = ctx.limits
        step = float(scale)
        # The gradient where (low − ½) · step < x < (high + ½) · step, in a single pass.
        of_x = torch.ops.aten.hardtanh_backward(gradient, x, (low - 0.5) * step, (high + 0.5) * step)
        if result is None:
            return of_x, None, None, None
        # Inside, (result − x) / scale is the rounding error; outside, of_x is 0 and result / scale the limit.
        of_scale = (gradient * result).addcmul_(of_x, x, value=-1).sum() / scale
        return of_x, of_scale, None, None
