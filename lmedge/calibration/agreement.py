"""How far two engines are apart on one int8 file, and at which layer that starts.

Both are given the same crops, one by one, and compute in float32 around the integers. For the crop with the largest distance
the tensors behind all quantisers are compared as well, in steps of their scales, with each other and with the file as it is
written: every node for itself, no quantiser fused into an integer kernel.

To see a tensor it has to become an output, and that can keep an engine from fusing the layers around it. So the points are
looked at again: where they change by a single bit, half of the tensors are watched at a time, and so on down to one. A tensor
that changes them even alone is marked, since what is seen there is not what the engine computes when nobody looks.

An int8 network is chaotic: one value that two engines round to different sides becomes thousands of them ten layers later, so
the layer that starts it tells the cause, and those behind it only how far it has grown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact, TensorSpec
from lmedge.calibration.crop_store import CropArray, Crops, as_crops, crop_batches
from lmedge.errors import CalibrationError
from lmedge.export.graph.compare import INPUT, LITERAL, OUTPUT, open_session
from lmedge.export.graph.qdq_graph import ACTIVATIONS, Pair, QdqGraph, label
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import Runtime

if TYPE_CHECKING:
    import onnx

ENGINES = ("onnxruntime", "openvino")
# A layer starts it when its values differ by this part of a step on average. Single values on the border between two steps,
# a few in a million, are rounded differently by any two engines.
START_STEPS = 0.01

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Steps:
    """Mean and largest difference of a quantised tensor, in steps of its scale."""

    mean: float
    max: float

    @classmethod
    def between(cls, one: Floats, other: Floats, scale: float) -> Steps:
        steps = np.abs(one.astype(np.float64) - other) / scale
        return cls(float(steps.mean()), float(steps.max()))


@dataclass(frozen=True)
class LayerDifference:
    """One quantised tensor of the worst crop.

    Attributes:
        tensor: the name of what is quantised; layer: what computes it, operator and name.
        engines: between the two engines.
        from_written: engine → from the file as it is written.
        disturbed: engines whose points change when this tensor is watched.
    """

    tensor: str
    layer: str
    engines: Steps
    from_written: Mapping[str, Steps]
    disturbed: tuple[str, ...]


@dataclass(frozen=True)
class Disagreement:
    """Two engines on the same int8 file and the same crops; distances of points in pixels of the crop.

    Attributes:
        file: its name; engines: name → version.
        mean_px, max_px: over all crops and points.
        crop_mean_px, crop_max_px: the same for each crop.
        worst: number of the crop with the largest distance.
        layers: of that crop, in graph order; empty where nobody asked.
    """

    file: str
    engines: Mapping[str, str]
    mean_px: float
    max_px: float
    crop_mean_px: tuple[float, ...]
    crop_max_px: tuple[float, ...]
    worst: int
    layers: tuple[LayerDifference, ...]

    @property
    def crops(self) -> int:
        return len(self.crop_max_px)

    @property
    def start(self) -> LayerDifference | None:
        """The first layer at which the engines differ by more than single values; None where none does."""
        return next((layer for layer in self.layers if layer.engines.mean > START_STEPS), None)

    def to_json(self) -> dict[str, Any]:
        start = self.start
        rounded = {name: [round(px, 4) for px in getattr(self, name)] for name in ("crop_mean_px", "crop_max_px")}
        return {**asdict(self), **rounded, "crops": self.crops, "start": None if start is None else start.tensor}


def disagreement(
    int8_onnx: Path, crops_uint8: Crops, *, engines: tuple[str, str] = ENGINES, layers: bool = True
) -> Disagreement:
    """Compares two engines on an int8 file.

    Args:
        crops_uint8: (N, H, W, 3) BGR, any number of them.
        engines: names of runtimes that read ONNX files.
        layers: look into the layers too, a few compilations more.

    Raises:
        CalibrationError: the crops are none, or the file has no quantiser.
        BackendUnavailableError: an engine is not installed.
    """
    import onnx

    crops, model = as_crops(crops_uint8), onnx.load(int8_onnx)
    if not _watched(QdqGraph(model.graph)):
        raise CalibrationError(f"{int8_onnx} quantises nothing, so engines have nothing to round differently.")
    points = [_points(engine, model, crops) for engine in engines]
    size_px = np.array([crops.shape[2], crops.shape[1]], np.float64)
    distance_px = np.linalg.norm((points[0].astype(np.float64) - points[1]) * size_px, axis=2)
    worst = int(distance_px.max(axis=1).argmax())
    return Disagreement(
        file=int8_onnx.name,
        engines={engine: find_runtime(engine).status().version or "" for engine in engines},
        mean_px=float(distance_px.mean()),
        max_px=float(distance_px.max()),
        crop_mean_px=tuple(map(float, distance_px.mean(axis=1))),
        crop_max_px=tuple(map(float, distance_px.max(axis=1))),
        worst=worst,
        layers=_layers(model, crops[worst : worst + 1], engines) if layers else (),
    )


def layer_table(found: Disagreement) -> list[list[str]]:
    """A row for each layer: what it is, then mean and max in steps between the engines and of each from the file as written."""
    rows = []
    for layer in found.layers:
        steps = [layer.engines, *(layer.from_written[engine] for engine in found.engines)]
        note = f"seen only by disturbing {', '.join(layer.disturbed)}" if layer.disturbed else ""
        start = "starts here" if layer == found.start else ""
        rows.append([layer.layer, *(f"{s.mean:.4f} / {s.max:.0f}" for s in steps), " ".join(filter(None, (start, note)))])
    return rows


def _points(engine: str, model: onnx.ModelProto, crops: Crops) -> Floats:
    with _opened(engine, model, ()) as runtime:
        single = (batch[row : row + 1] for batch in crop_batches(crops) for row in range(len(batch)))
        return np.concatenate([_run(runtime, crop)[OUTPUT] for crop in single])


def _layers(model: onnx.ModelProto, crop: CropArray, engines: tuple[str, str]) -> tuple[LayerDifference, ...]:
    view = QdqGraph(model.graph)
    pairs = _watched(view)
    names = [pair.result for pair in pairs]
    session = open_session(_with_outputs(model, names), threads=1, settings=LITERAL)
    written = dict(zip(names, session.run(names, {INPUT: crop}), strict=True))
    seen = {engine: _see(engine, model, crop, names, _points(engine, model, crop)) for engine in engines}
    differences = []
    for pair in pairs:
        scale = float(np.asarray(view.array(pair.dequantize.input[1])).max())
        one, other = (seen[engine][pair.result].values for engine in engines)
        differences.append(
            LayerDifference(
                tensor=pair.source,
                layer=_layer(view, pair),
                engines=Steps.between(one, other, scale),
                from_written={
                    engine: Steps.between(seen[engine][pair.result].values, written[pair.result], scale) for engine in engines
                },
                disturbed=tuple(engine for engine in engines if seen[engine][pair.result].disturbed),
            )
        )
    return tuple(differences)


@dataclass(frozen=True)
class _Seen:
    """A tensor as an engine gives it, and whether looking at it changed the points."""

    values: Floats
    disturbed: bool


def _see(engine: str, model: onnx.ModelProto, crop: CropArray, names: Sequence[str], points: Floats) -> dict[str, _Seen]:
    """The named tensors, as many at a time as leave the points as they are."""
    with _opened(engine, model, names) as runtime:
        results = _run(runtime, crop)
    undisturbed = np.array_equal(results[OUTPUT], points)
    if undisturbed or len(names) == 1:
        return {name: _Seen(results[name], not undisturbed) for name in names}
    half = len(names) // 2
    return _see(engine, model, crop, names[:half], points) | _see(engine, model, crop, names[half:], points)


def _watched(view: QdqGraph) -> list[Pair]:
    """The pairs of activations with one scale; of two in a row, the first."""
    results = {pair.result for pair in view.activation_pairs()}
    constant = [pair for pair in view.activation_pairs() if view.is_constant(pair.dequantize.input[1])]
    return [pair for pair in constant if pair.source not in results]


def _layer(view: QdqGraph, pair: Pair) -> str:
    """What computes a tensor: the layer, and the activation behind it."""
    maker = view.maker.get(view.before_moves(pair.source))
    behind = ""
    if maker is not None and maker.op_type in ACTIVATIONS:
        behind = f" and {maker.op_type}"
        maker = view.maker.get(view.before_moves(maker.input[0]))
    return f"the image{behind}" if maker is None else f"{maker.op_type} {label(maker)}{behind}"


@contextmanager
def _opened(engine: str, model: onnx.ModelProto, names: Sequence[str]) -> Iterator[Runtime]:
    """An engine with further outputs, for one crop at a time on one thread."""
    watching = _with_outputs(model, names)
    with TemporaryDirectory(prefix="lmedge-") as folder:
        file = Path(folder) / "model.int8.onnx"
        file.write_bytes(watching.SerializeToString())
        specs = [tuple(map(_spec, values)) for values in (watching.graph.input, watching.graph.output)]
        artifact = Artifact.of_file(file, file.parent, format="onnx", precision="int8", inputs=specs[0], outputs=specs[1])
        with find_runtime(engine).open(artifact, threads=1, batch=1) as runtime:
            yield runtime


def _run(runtime: Runtime, crop: CropArray) -> Mapping[str, npt.NDArray[Any]]:
    return runtime.infer({INPUT: crop})


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph with the named tensors as outputs too, which have the shapes that ONNX infers."""
    import onnx

    watching = onnx.ModelProto()
    watching.CopyFrom(model)
    if names:
        inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
        watching.graph.output.extend(inferred[name] for name in names)
    return watching


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)
