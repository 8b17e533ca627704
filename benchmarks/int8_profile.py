"""Where the time goes in float and in int8, by kind of layer: what keeps int8 from being faster still.

    python benchmarks/int8_profile.py RUN... [--out benchmarks/results]

A RUN is a folder of `lmedge build` or `lmedge quantize`. Both engines run one crop on one thread, fp32 and the x86 form of
int8, with their own profilers on, which adds about a microsecond per layer; whole calls are timed without them, in turns.
Writes int8_profile.json and int8_profile.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from lmedge.export.graph.compare import INPUT
from lmedge.runtimes.bench import alternate, describe_machine
from lmedge.runtimes.telemetry import telemetry_off

FILES = {"fp32": "export/model.fp32.onnx", "int8": "quantize/model.int8-x86.onnx"}
CALLS, PROFILED, BURST = 1200, 200, 20
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
    "GroupConvolution": DEPTHWISE,
}

Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    rows = [row for run in arguments.runs for row in _profile(run)]
    machine = describe_machine()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "int8_profile.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    (arguments.out / "int8_profile.md").write_text(_markdown(rows, machine))


def _profile(run: Path) -> list[dict[str, Any]]:
    files = {precision: run / name for precision, name in FILES.items()}
    shape = onnx.load(files["fp32"]).graph.input[0].type.tensor_type.shape.dim[1:]
    crop = np.random.default_rng(0).integers(0, 256, (1, *(dim.dim_value for dim in shape)), np.uint8)
    rows = []
    engines = {"onnxruntime": (_onnxruntime_call, _onnxruntime_times), "openvino": (_openvino_call, _openvino_times)}
    for engine, (make_call, layer_times) in engines.items():
        calls = [make_call(file, crop) for file in files.values()]
        whole = dict(zip(files, alternate(*calls, CALLS, time.perf_counter_ns, burst=BURST), strict=True))
        row = {
            "network": run.name,
            "engine": engine,
            "call_us": {precision: round(float(np.median(times)) * 1e3, 1) for precision, times in whole.items()},
            "kinds_us": {precision: layer_times(file, crop) for precision, file in files.items()},
        }
        print(f"{run.name} {engine}: {row['call_us']}", flush=True)
        rows.append(row)
    return rows


# ---- ONNX Runtime ----


def _onnxruntime_session(file: Path, **options: Any) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])


def _onnxruntime_call(file: Path, crop: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    session = _onnxruntime_session(file)
    return lambda: session.run(None, {INPUT: crop})


def _onnxruntime_times(file: Path, crop: npt.NDArray[np.uint8]) -> Times:
    with tempfile.TemporaryDirectory() as folder:
        session = _onnxruntime_session(file, enable_profiling=True, profile_file_prefix=f"{folder}/profile")
        for _ in range(PROFILED):
            session.run(None, {INPUT: crop})
        events = json.loads(Path(session.end_profiling()).read_text())
    convolutions = _convolutions(file)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"], _onnx_kind(event, convolutions)].append(event["dur"])
    return _by_kind((kind, values) for (_, kind), values in times.items())


def _convolutions(file: Path) -> dict[str, str]:
    """Name → kind of each convolution in a file."""
    graph = onnx.load(file).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    stored = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return {node.name: _convolution_kind(shapes[stored.get(node.input[1], node.input[1])]) for node in convolutions}


def _onnx_kind(event: dict[str, Any], convolutions: dict[str, str]) -> str:
    operator = event["args"]["op_name"]
    if operator == "QLinearConv":
        # Its weights are packed and no longer listed; its name is that of the convolution, with a number.
        return convolutions[event["name"].partition("_token_")[0]]
    if operator == "Conv":
        return _convolution_kind(tuple(next(iter(event["args"]["input_type_shape"][1].values()))))
    return _ONNX_KINDS.get(operator, REST)


def _convolution_kind(shape: tuple[int, ...]) -> str:
    if shape[1] == 1:
        return DEPTHWISE
    return POINTWISE if shape[2:] == (1, 1) else OTHER_CONVOLUTION


# ---- OpenVINO ----


def _openvino_request(file: Path, crop: npt.NDArray[np.uint8], *, profiled: bool = False) -> Any:
    with telemetry_off():
        import openvino

    core = openvino.Core()
    model = core.read_model(str(file))
    model.reshape({INPUT: list(crop.shape)})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", {**hints, "PERF_COUNT": profiled}).create_infer_request()
    request.set_tensor(INPUT, openvino.Tensor(crop))
    return request


def _openvino_call(file: Path, crop: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    return _openvino_request(file, crop).infer  # type: ignore[no-any-return]


def _openvino_times(file: Path, crop: npt.NDArray[np.uint8]) -> Times:
    request = _openvino_request(file, crop, profiled=True)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(PROFILED):
        request.infer()
        for layer in request.get_profiling_info():
            if str(layer.status).endswith("EXECUTED") and "NOT" not in str(layer.status):
                times[layer.node_name, _openvino_kind(layer)].append(layer.real_time.total_seconds() * 1e6)
    return _by_kind((kind, values) for (_, kind), values in times.items())


def _openvino_kind(layer: Any) -> str:
    if layer.node_type == "Convolution":
        return POINTWISE if "1x1" in layer.exec_type else OTHER_CONVOLUTION
    return _OPENVINO_KINDS.get(layer.node_type, REST)


# ---- what is written ----


def _by_kind(layers: Any) -> Times:
    """Medians of the layers, summed over each kind, in microseconds."""
    sums = dict.fromkeys(KINDS, 0.0)
    for kind, values in layers:
        sums[kind] += statistics.median(values)
    return {kind: round(total, 1) for kind, total in sums.items()}


def _markdown(rows: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    engines = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino"))
    lines = [
        "# Where int8 gains, and where it does not",
        "",
        "Made by `python benchmarks/int8_profile.py`. Microseconds for one crop on one thread, fp32 → int8 (x86 form), and how",
        "many times faster; layers as the engine's own profiler has them, the whole call without it, both networks in turns.",
        "",
        f"{machine['cpu']}, Python {platform.python_version()}, {engines}",
        "",
        f"| | {' | '.join(row['network'] + ', ' + row['engine'] for row in rows)} |",
        f"|---|{'---|' * len(rows)}",
    ]
    lines += [f"| {kind} | {' | '.join(_cell(row['kinds_us'], kind) for row in rows)} |" for kind in KINDS]
    wholes = ({precision: {"whole": time} for precision, time in row["call_us"].items()} for row in rows)
    lines.append(f"| **whole call** | {' | '.join(_cell(times, 'whole') for times in wholes)} |")
    return "\n".join(lines) + "\n"


def _cell(times: dict[str, Times], kind: str) -> str:
    before, after = times["fp32"][kind], times["int8"][kind]
    if not before and not after:
        return "–"
    return f"{before:.0f} → {after:.0f}" + (f" ({before / after:.2f}×)" if before and after else "")


if __name__ == "__main__":
    main()
