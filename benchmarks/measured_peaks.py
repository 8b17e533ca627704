"""What one thread of this machine can do: products per second, bytes per second, and what a layer costs that does nothing.

Peaks are the best of several large matrix products in torch (oneDNN) and of chains of large 1 × 1 convolutions, which are
matrix products too, on both engines: whatever is fastest here is what a network could reach.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from layer_profiles import BFLOAT16, FLOAT32, INT8, engine_call
from onnx import TensorProto, helper, numpy_helper

ENGINES = ("onnxruntime", "openvino")
GEMM_SIDES = (512, 1024, 1536)
# Channels and side of the images of the large convolutions.
CONVOLUTIONS = ((256, 32), (512, 32), (1024, 16))
LEVELS = (256 * 2**10, 512 * 2**10, 4 * 2**20, 64 * 2**20)
_LARGE_LAYERS = 4
# Two chains of layers of hardly any work: what more of them cost more is the cost of a layer.
_SHORT, _LONG, _SMALL_CHANNELS, _SMALL_SIDE = 16, 80, 16, 2
_COPIED_BYTES = 64 * 2**20
_SCALE = 0.02
_OPSET, _IR_VERSION = 20, 10


def peaks_gmacs(rounds: int) -> dict[str, dict[str, float]]:
    """Precision → contender → GMAC/s, the best of `rounds` calls of each; bf16 only where the processor has it."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {FLOAT32: {}, INT8: {}}
    kinds = {FLOAT32: torch.float32, INT8: torch.int8}
    if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        kinds[BFLOAT16], found[BFLOAT16] = torch.bfloat16, {}
    for side in GEMM_SIDES:
        for precision, dtype in kinds.items():
            found[precision][f"torch product, {side} × {side}"] = side**3 / _least_ns(_product(side, dtype), rounds)
    for channels, side in CONVOLUTIONS:
        macs = _LARGE_LAYERS * channels**2 * side**2
        for precision in (FLOAT32, INT8):
            crop, model = chain(channels, side, _LARGE_LAYERS, quantised=precision == INT8)
            for engine in ENGINES:
                call = engine_call(engine, model, crop, input_name="x")
                found[precision][f"{engine}, 1 × 1 convolutions, {channels} of {side} × {side}"] = macs / _least_ns(
                    call, rounds
                )
    return {precision: {name: round(value, 1) for name, value in sorted(rates.items())} for precision, rates in found.items()}


def bandwidths_gbs(rounds: int) -> dict[int, float]:
    """Bytes in use → GB/s, read and written bytes together, of a copy from one half to the other; best of `rounds`."""
    found = {}
    for held in LEVELS:
        source, target = np.ones(held // 8, np.float32), np.ones(held // 8, np.float32)
        repeats = max(1, _COPIED_BYTES // held // 16)

        def copies(source: Any = source, target: Any = target, repeats: int = repeats) -> None:
            for _ in range(repeats):
                np.copyto(target, source)

        found[held] = round(held * repeats / _least_ns(copies, rounds), 1)
    return found


def call_costs_us(engine: str, rounds: int) -> dict[str, float]:
    """Precision → what one more 1 × 1 convolution of hardly any work costs an engine, without its profiler."""
    costs = {}
    for precision in (FLOAT32, INT8):
        calls = []
        for layers in (_SHORT, _LONG):
            crop, model = chain(_SMALL_CHANNELS, _SMALL_SIDE, layers, quantised=precision == INT8)
            calls.append(engine_call(engine, model, crop, input_name="x"))
        times = [[_ns(call) for call in calls] for _ in range(10 * rounds)]
        short, long = (statistics.median(row[place] for row in times) for place in (0, 1))
        costs[precision] = round(max(0.0, (long - short) / (_LONG - _SHORT) / 1e3), 2)
    return costs


def chain(channels: int, side: int, layers: int, *, quantised: bool) -> tuple[Any, bytes]:
    """An input and a model of 1 × 1 convolutions with ReLU in a chain, in float or as quantised pairs, uint8 × int8."""
    rng = np.random.default_rng(0)
    made, nodes, tensors = f"{channels}", [], []

    def keep(name: str, array: Any) -> str:
        tensors.append(numpy_helper.from_array(array, name))
        return name

    scale, zero, zero_weight = (
        keep("scale", np.float32(_SCALE).reshape(())),
        keep("zero", np.zeros((), np.uint8)),
        keep("zero_weight", np.zeros((), np.int8)),
    )
    before = "x"
    if quantised:
        nodes.append(helper.make_node("DequantizeLinear", ["x", scale, zero], ["x_float"], "dequantise"))
        before = "x_float"
    for layer in range(layers):
        weight, product, after = f"weight_{layer}", f"product_{layer}", f"after_{layer}"
        shape = (channels, channels, 1, 1)
        if quantised:
            keep(f"{weight}_int8", rng.integers(-127, 128, shape, np.int8))
            nodes.append(helper.make_node("DequantizeLinear", [f"{weight}_int8", scale, zero_weight], [weight], f"w_{layer}"))
        else:
            keep(weight, rng.standard_normal(shape).astype(np.float32) / np.float32(channels) ** 0.5)
        nodes.append(helper.make_node("Conv", [before, weight], [product], f"conv_{layer}"))
        nodes.append(helper.make_node("Relu", [product], [after], f"relu_{layer}"))
        before = after
        if quantised:
            nodes.append(helper.make_node("QuantizeLinear", [after, scale, zero], [f"{after}_uint8"], f"q_{layer}"))
            before = f"{after}_uint8"
            if layer < layers - 1:
                nodes.append(helper.make_node("DequantizeLinear", [before, scale, zero], [f"{after}_float"], f"dq_{layer}"))
                before = f"{after}_float"
    kind = TensorProto.UINT8 if quantised else TensorProto.FLOAT
    shape = (1, channels, side, side)
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", before)]
    graph = helper.make_graph(nodes, made, ends[:1], ends[1:], tensors if quantised else tensors[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    crop = rng.integers(0, 256, shape, np.uint8) if quantised else rng.standard_normal(shape).astype(np.float32)
    return crop, model.SerializeToString()


def _product(side: int, dtype: torch.dtype) -> Callable[[], Any]:
    if dtype == torch.int8:
        one, other = (torch.randint(-127, 128, (side, side), dtype=torch.int8) for _ in range(2))
        return lambda: torch._int_mm(one, other)
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return lambda: torch.mm(a, b)


def _least_ns(call: Callable[[], Any], rounds: int) -> float:
    call()
    return min(_ns(call) for _ in range(rounds))


def _ns(call: Callable[[], Any]) -> int:
    began = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - began
