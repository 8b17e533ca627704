"""Layers of a network as an engine runs them, with their times: ONNX file → `EngineLayer` in the order of execution.

Shapes, bytes and microseconds come from the engine's own profiler, multiply-adds and the kind from the ONNX file: engines fuse
and rename layers, but keep the name of the convolution or of what it gives.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from lmedge.export.graph.compare import INPUT
from lmedge.runtimes.onnxruntime import import_onnxruntime
from lmedge.runtimes.openvino import import_openvino

POINTWISE, DEPTHWISE, OTHER_CONVOLUTION = "1×1 convolutions", "depthwise convolutions", "other convolutions"
ADDS, ELEMENTWISE, POOLS = "residual adds", "activations and gates", "means"
CONVERSIONS, REST = "conversions and layout", "image and head"
KINDS = (POINTWISE, DEPTHWISE, OTHER_CONVOLUTION, ADDS, ELEMENTWISE, POOLS, CONVERSIONS, REST)
_ONNX_KINDS = {
    **dict.fromkeys(("Add", "QLinearAdd"), ADDS),
    **dict.fromkeys(("Clip", "Relu", "HardSigmoid", "HardSwish", "Mul", "QLinearMul"), ELEMENTWISE),
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool"), POOLS),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput"), CONVERSIONS),
}
_OPENVINO_KINDS = {
    **dict.fromkeys(("Subgraph", "Eltwise", "HardSigmoid", "Multiply", "FakeQuantize"), ELEMENTWISE),
    "ReduceMean": POOLS,
    **dict.fromkeys(("Reorder", "Transpose", "Convert"), CONVERSIONS),
}
_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
# What engines fuse into the convolution before, which then bears the name of its output.
_FUSED = ("Relu", "Clip", "Add", "HardSwish", "HardSigmoid", "QuantizeLinear")
_BYTES = {"u8": 1, "i8": 1, "f16": 2, "bf16": 2, "f32": 4, "i32": 4, "i64": 8}
FLOAT32, BFLOAT16, INT8 = "fp32", "bf16", "int8"

Crop = npt.NDArray[np.uint8]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """What one convolution or linear layer of an ONNX file has to do for one crop.

    Attributes:
        kind: one of `KINDS`; macs: multiply-adds; weights, biases: how many numbers; inputs: channels of the input.
    """

    kind: str
    macs: int
    weights: int
    biases: int
    inputs: int


@dataclass(frozen=True)
class EngineLayer:
    """One layer as an engine runs it.

    Attributes:
        name: the engine's; operator: the engine's word for what it does; kind: one of `KINDS`.
        precision: what its products are computed in, "fp32", "bf16" or "int8".
        input_shape, output_shape: as the engine tells them; () where it does not.
        macs: multiply-adds for one crop; inputs: channels of the input, 0 without multiply-adds.
        weight_bytes, activation_bytes: of weights read, and of other inputs read and outputs written.
        us: median time.
    """

    name: str
    operator: str
    kind: str
    precision: str
    input_shape: Shape
    output_shape: Shape
    macs: int
    inputs: int
    weight_bytes: int
    activation_bytes: int
    us: float


def network_work(file: Path, input_shape: Shape) -> dict[str, Work]:
    """Name of each convolution and linear layer → its work."""
    return _works(_with_shapes(file, input_shape).graph)


def _with_shapes(file: Path, input_shape: Shape) -> onnx.ModelProto:
    model = onnx.load(file)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, input_shape, strict=True):
        dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")  # it names the batch
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _works(graph: onnx.GraphProto) -> dict[str, Work]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    stored = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    infos = (*graph.value_info, *graph.input, *graph.output)
    given = {info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim) for info in infos}
    found = {}
    for node in graph.node:
        if node.op_type not in _WITH_WEIGHTS:
            continue
        weight = shapes.get(stored.get(node.input[1], node.input[1]))
        if weight is None:  # a product of two computed tensors
            continue
        convolution = node.op_type == "Conv"
        output = given[node.output[0]]
        channels = output[1] if convolution else output[-1]
        biases = math.prod(shapes.get(stored.get(node.input[2], node.input[2]), (0,))) if len(node.input) > 2 else 0
        kind = _convolution_kind(weight) if convolution else REST
        macs = math.prod(output) * math.prod(weight) // channels
        inputs = given[node.input[0]][1 if convolution else -1]
        found[node.name] = Work(kind, macs, math.prod(weight), biases, inputs)
    return found


def _convolution_kind(shape: Shape) -> str:
    if shape[1] == 1:
        return DEPTHWISE
    return POINTWISE if shape[2:] == (1, 1) else OTHER_CONVOLUTION


def names_of_work(graph: onnx.GraphProto, works: Mapping[str, Work]) -> dict[str, Work]:
    """The works by every name that an engine may call them by: the node's, its output's, and those of what is fused behind."""
    consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    names = {}
    for node in graph.node:
        work = works.get(node.name)
        if work is None:
            continue
        names[node.name] = work
        last: onnx.NodeProto | None = node
        while last is not None:
            names.setdefault(last.output[0], work)
            after = consumers[last.output[0]]
            last = after[0] if len(after) == 1 and after[0].op_type in _FUSED else None
    return names


def engine_call(engine: str, file: Path | bytes, crop: npt.NDArray[Any], *, input_name: str = INPUT) -> Callable[[], Any]:
    """A call on one thread, of a file or of a serialised model, as tutorials have it."""
    if engine == "onnxruntime":
        session = _onnxruntime_session(file)
        return lambda: session.run(None, {input_name: crop})
    return _openvino_request(file, crop, input_name).infer  # type: ignore[no-any-return]


def engine_layers(engine: str, file: Path, crop: Crop, calls: int) -> list[EngineLayer]:
    """The layers that an engine makes of a file, medians over `calls` calls on one thread; its profiler is on."""
    model = _with_shapes(file, crop.shape)
    works = names_of_work(model.graph, _works(model.graph))
    return (_onnxruntime_layers if engine == "onnxruntime" else _openvino_layers)(file, crop, calls, works)


# ---- ONNX Runtime ----


def _onnxruntime_session(file: Path | bytes, **options: Any) -> Any:
    engine = import_onnxruntime()
    settings = engine.SessionOptions()
    settings.intra_op_num_threads = 1
    for name, value in options.items():
        setattr(settings, name, value)
    return engine.InferenceSession(file if isinstance(file, bytes) else str(file), settings, providers=["CPUExecutionProvider"])


def _onnxruntime_layers(file: Path, crop: Crop, calls: int, works: Mapping[str, Work]) -> list[EngineLayer]:
    with tempfile.TemporaryDirectory() as folder:
        session = _onnxruntime_session(file, enable_profiling=True, profile_file_prefix=f"{folder}/profile")
        for _ in range(calls):
            session.run(None, {INPUT: crop})
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            times[name].append(event["dur"])
            facts.setdefault(name, event["args"])
    return [_onnxruntime_layer(name, facts[name], statistics.median(times[name]), works) for name in times]


def _onnxruntime_layer(name: str, args: Mapping[str, Any], us: float, works: Mapping[str, Work]) -> EngineLayer:
    operator = args["op_name"]
    # "node_Conv_7_token_3" and "relu_2_nchwc" are what fused convolutions are called.
    stem = name.partition("_token_")[0].removesuffix("_nchwc")
    weighty = any(word in operator for word in (*_WITH_WEIGHTS, "QGemm"))
    work = works.get(stem) if weighty else None
    inputs, outputs = ([next(iter(entry.values())) for entry in args[f"{side}_type_shape"]] for side in ("input", "output"))
    int8 = operator.startswith(("QLinear", "QGemm"))
    each = 1 if int8 else 4
    return EngineLayer(
        name=name,
        operator=operator,
        kind=work.kind if work else _ONNX_KINDS.get(operator, REST),
        precision=INT8 if int8 else FLOAT32,
        input_shape=tuple(inputs[0]) if inputs else (),
        output_shape=tuple(outputs[0]) if outputs else (),
        macs=work.macs if work else 0,
        inputs=work.inputs if work else 0,
        # Packed weights of integer kernels are not in what the profiler counts.
        weight_bytes=work.weights * each + 4 * work.biases if work else int(args["parameter_size"]),
        activation_bytes=int(args["activation_size"]) + int(args["output_size"]),
        us=us,
    )


# ---- OpenVINO ----


def _openvino_request(file: Path | bytes, crop: npt.NDArray[Any], input_name: str, *, profiled: bool = False) -> Any:
    engine = import_openvino()
    core = engine.Core()
    model = core.read_model(file, b"") if isinstance(file, bytes) else core.read_model(str(file))
    model.reshape({input_name: list(crop.shape)})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 0, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", {**hints, "PERF_COUNT": profiled}).create_infer_request()
    request.set_tensor(input_name, engine.Tensor(crop))
    return request


def _openvino_layers(file: Path, crop: Crop, calls: int, works: Mapping[str, Work]) -> list[EngineLayer]:
    request = _openvino_request(file, crop, INPUT, profiled=True)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(calls):
        request.infer()
        for layer in request.get_profiling_info():
            if str(layer.status).endswith("EXECUTED") and "NOT" not in str(layer.status):
                times[layer.node_name].append(layer.real_time.total_seconds() * 1e6)
    ran = request.get_compiled_model().get_runtime_model().get_ordered_ops()
    constant: dict[str, bool] = {}
    for op in ran:
        sources = _sources(op)
        constant[op.get_friendly_name()] = _told(op, "layerType") == "Const" or (
            bool(sources) and all(constant[source.get_friendly_name()] for source in sources)
        )
    names = [op.get_friendly_name() for op in ran]
    return [
        _openvino_layer(op, statistics.median(times[name]), works, constant)
        for op, name in zip(ran, names, strict=True)
        if name in times and not constant[name]
    ]


def _openvino_layer(op: Any, us: float, works: Mapping[str, Work], constant: Mapping[str, bool]) -> EngineLayer:
    own = dict.fromkeys(_told(op, "originalLayersNames").split(","))
    done = list({id(works[name]): works[name] for name in own if name in works}.values())
    operator = _told(op, "layerType")
    done = done if any(word in operator for word in ("Convolution", "FullyConnected", "MatMul")) else []
    weights, activations = 0, 0
    for port, source in zip(op.inputs(), _sources(op), strict=True):
        held = math.prod(port.get_shape()) * _BYTES.get(_told(source, "outputPrecisions").partition(",")[0], 4)
        if constant[source.get_friendly_name()]:
            weights += held
        else:
            activations += held
    each = _BYTES.get(_told(op, "outputPrecisions").partition(",")[0], 4)
    activations += sum(math.prod(port.get_shape()) * each for port in op.outputs())
    computed = _told(op, "runtimePrecision")
    return EngineLayer(
        name=op.get_friendly_name(),
        operator=operator,
        kind=max(done, key=lambda work: work.macs).kind if done else _OPENVINO_KINDS.get(operator, REST),
        precision={"u8": INT8, "i8": INT8, "bf16": BFLOAT16}.get(computed, FLOAT32),
        input_shape=tuple(op.inputs()[0].get_shape()) if op.inputs() else (),
        output_shape=tuple(op.outputs()[0].get_shape()) if op.outputs() else (),
        macs=sum(work.macs for work in done),
        inputs=done[0].inputs if done else 0,
        weight_bytes=weights,
        activation_bytes=activations,
        us=us,
    )


def _sources(op: Any) -> Sequence[Any]:
    return [port.get_source_output().get_node() for port in op.inputs()]


def _told(op: Any, key: str) -> str:
    value = op.get_rt_info()[key]
    return str(value.astype(str) if hasattr(value, "astype") else value)
