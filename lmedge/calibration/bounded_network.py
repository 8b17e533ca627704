"""One dialect's int8 network as a build wants it: its layers ranked, and as many of them in float as a bound needs.

Faces have three roles that never mix. Ranges are measured on some training faces, layers chosen on others (`choice_images`),
and what the finished file adds to the error is gated on validation faces. The float network was trained on the first two, so
the loss here is not the gated one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.calibration.bound import BoundResult, leave_float
from lmedge.calibration.crop_store import Crops
from lmedge.calibration.images import CalibrationImages, JitterSpec, calibration_images
from lmedge.calibration.place_qdq import quantised_layers
from lmedge.calibration.report import describe_layers
from lmedge.calibration.sensitivity import Judge, Make, Sensitivity, measure_sensitivity
from lmedge.calibration.stopwatch import Stopwatch
from lmedge.data.samples import FaceSample, is_validation
from lmedge.errors import CalibrationError
from lmedge.export.pack import photo_digest
from lmedge.preprocess import PreprocessSpec
from lmedge.progress import Progress
from lmedge.schemas import LandmarkSchema

if TYPE_CHECKING:
    import onnx

# Faces that the bound is judged on, and those of them that rank the layers.
CHOICE_FACES, RANKING_FACES = 1000, 200
# Boxes as in evaluation: by the labels.
_UNMOVED = JitterSpec(scale=0, shift=0, views=1)


@dataclass(frozen=True, eq=False)
class BoundedNetwork:
    """The int8 network that was chosen, and how.

    Attributes:
        model: with `float_layers` in float.
        sensitivity: None where the layers did not have to be ranked.
        bound: None where none was asked for.
        engine: that times were taken on; faces: that losses were taken on.
    """

    model: onnx.ModelProto
    float_layers: tuple[str, ...]
    sensitivity: Sensitivity | None
    bound: BoundResult | None
    engine: str
    faces: int

    def to_json(self) -> dict[str, Any]:
        return {
            "float_layers": list(self.float_layers),
            "engine": self.engine,
            "faces": self.faces,
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_json(),
            "bound": None if self.bound is None else self.bound.to_json(),
        }


def choice_images(
    samples: Sequence[FaceSample],
    calibrated: CalibrationImages,
    spec: PreprocessSpec,
    *,
    seed: int,
    count: int = CHOICE_FACES,
) -> CalibrationImages:
    """Crops of training faces on photos that were not calibrated on, of all kinds, for `bound_network`.

    Raises:
        CalibrationError: calibration took every training photo, or as `calibration_images` raises it.
        DataError: an image cannot be read, or a label lies far outside it.
    """
    taken = set(calibrated.photo_digests)
    left = [s for s in samples if not is_validation(s.photo_key) and photo_digest(s.photo_key) not in taken]
    if not left:
        raise CalibrationError(
            f"Calibration took all {len(taken)} training photos, so none is left to choose float layers on. "
            f"Calibrate on fewer: --set quantize.images={max(1, len(taken) // 2)}"
        )
    return calibration_images(left, spec, count=count, seed=seed, jitter=_UNMOVED)


def bound_network(
    make: Make,
    fp32: onnx.ModelProto,
    crops_uint8: Crops,
    true_fractions: npt.NDArray[np.floating],
    schema: LandmarkSchema,
    *,
    max_nme_loss: float | None = None,
    min_speedup: float | None = None,
    sensitivity: bool = False,
    rank_with: Make | None = None,
    engine: str = "onnxruntime",
    progress: Progress | None = None,
) -> BoundedNetwork:
    """One dialect's int8 network: full int8, or with layers in float where a bound needs it.

    The layers are ranked only where that is asked for or full int8 is not accurate enough.

    Args:
        make: the float layers → the network, by the whole recipe.
        fp32: the network as it was exported; what losses and speed-ups refer to.
        crops_uint8: (N, H, W, 3) BGR of training faces that were not calibrated on, in an order that mixes all kinds: the more,
            the tighter the bound. The first `RANKING_FACES` of them rank the layers.
        true_fractions: (N, K, 2), their labels as fractions of the crop, NaN where unknown.
        max_nme_loss: as `leave_float` takes it.
        min_speedup: as `leave_float` takes it; of a dialect that is meant for other engines than `engine`, leave it out.
        sensitivity: rank the layers in any case, and measure the whole path where there is a bound.
        rank_with: a cheaper `make` for the ranking, without what is fitted to each network anew.
        engine: that times are taken on.

    Raises:
        CalibrationError: as `Judge` and `leave_float` raise it.
        BackendUnavailableError: ONNX Runtime or `engine` is not installed.
    """
    found: list[Sensitivity] = []

    def ranked() -> Iterator[str]:
        if not found:
            few = min(RANKING_FACES, len(crops_uint8))
            judge = Judge(fp32, crops_uint8[0:few], true_fractions[:few], schema)
            what = describe_layers(fp32)
            found.append(measure_sensitivity(rank_with or make, quantised_layers(fp32), judge, what=what, progress=progress))
        yield from found[0].order

    if sensitivity:
        next(ranked())
    bound = None
    if max_nme_loss is not None or min_speedup is not None:
        with Stopwatch(fp32, engine=engine) as stopwatch:
            bound = leave_float(
                make,
                ranked(),
                Judge(fp32, crops_uint8, true_fractions, schema),
                stopwatch,
                max_nme_loss=max_nme_loss,
                min_speedup=min_speedup,
                whole_path=sensitivity,
                progress=progress,
            )
    float_layers = () if bound is None else bound.chosen.float_layers
    model = make(frozenset(float_layers))
    return BoundedNetwork(model, float_layers, found[0] if found else None, bound, engine, len(crops_uint8))
