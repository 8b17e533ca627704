"""How a float network becomes an int8 one: the steps before quantisers are placed, and the choice of a recipe by its error.

    float model ─ equalise ─ measure activations ─▶ Prepared ─ place quantisers (dialect) ─ correct biases ─▶ Q/DQ model

or, with NNCF as the base, its range estimator in place of the first two. Which recipe serves a
network best is not known beforehand, so `choose` measures: on training faces that were not calibrated on, it takes the recipe
with the lowest upper bound of what int8 adds to the NME.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from lmedge.calibration.correct_bias import Means, correct_biases, measure_means
from lmedge.calibration.crop_store import Crops
from lmedge.calibration.equalise import equalise
from lmedge.calibration.place_qdq import Dialect, Ranges, place_qdq, quantised_tensors
from lmedge.calibration.ranges import COVERAGE, METHODS, Measured, RangeMethod, measure
from lmedge.calibration.sensitivity import NetworkLoss
from lmedge.errors import CalibrationError
from lmedge.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

Base = Literal["lmedge", "nncf"]
BASES: tuple[Base, ...] = ("lmedge", "nncf")
BEST = "best"
_NEED_HISTOGRAMS = ("percentile", "mse")
# Ranges that "best" chooses from. A network with rare large activations wants a low coverage, a well-behaved one a high one.
_TRIED = (("coverage", 0.95), ("min-max", 1.0), ("coverage", 0.99), ("coverage", 0.9), ("coverage", 0.8), ("mse", COVERAGE))


@dataclass(frozen=True)
class Recipe:
    """The steps of post-training quantisation.

    Attributes:
        base: whose steps: lmedge's, as the next four say, or NNCF's, for which only `correct_bias` counts.
        equalise: give all channels of an activation the same range first (`equalise`).
        correct_bias: make up for the rounding of weights in the biases (`correct_bias`).
        ranges: min-max, coverage, percentile or mse (`ranges`).
        coverage: of the crops, for the ranges of that name; above 0.5, 1 is plain min-max.
    """

    base: Base = "lmedge"
    equalise: bool = True
    correct_bias: bool = True
    ranges: RangeMethod = "coverage"
    coverage: float = COVERAGE

    def __post_init__(self) -> None:
        if self.base not in BASES or self.ranges not in METHODS:
            known = f"base {' or '.join(BASES)}, ranges {', '.join(METHODS)}"
            raise CalibrationError(f"A recipe takes {known}; got base {self.base!r}, ranges {self.ranges!r}.")
        if not 0.5 < self.coverage <= 1:
            raise CalibrationError(f"coverage must be above 0.5 and at most 1 (plain min-max); got {self.coverage}.")

    def __str__(self) -> str:
        corrected = ["biases corrected"] * self.correct_bias
        if self.base == "nncf":
            return ", ".join(["NNCF", *corrected, "mean min-max ranges"])
        ranges = f"coverage {self.coverage:g}" if self.ranges == "coverage" else self.ranges
        return ", ".join([*["equalised"] * self.equalise, *corrected, f"{ranges} ranges"])


@dataclass(frozen=True, eq=False)
class Prepared:
    """A float network ready for quantisers, with what is known of its activations. `place` gives the int8 network.

    `means` are those of what its convolutions read, to correct biases by; None where they stay as they are.
    """

    recipe: Recipe
    float_model: onnx.ModelProto
    activations: Measured | Ranges
    tool_versions: Mapping[str, str]
    means: Means | None

    def place(self, dialect: Dialect, float_layers: Collection[str] = ()) -> onnx.ModelProto:
        """The Q/DQ network of a dialect; see `place_qdq`. Biases of float layers are not corrected."""
        placed = place_qdq(self.float_model, self.ranges(dialect), dialect, float_layers)
        return placed if self.means is None else correct_biases(placed, self.float_model, self.means)

    def ranges(self, dialect: Dialect) -> Ranges:
        if isinstance(self.activations, Measured):
            return self.activations.ranges(self.recipe.ranges, dialect, self.recipe.coverage)
        return self.activations


@dataclass(frozen=True)
class RecipeResult:
    """What a recipe cost on the faces of the choice."""

    dialect: Dialect
    recipe: Recipe
    loss: NetworkLoss
    chosen: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "dialect": self.dialect,
            "recipe": asdict(self.recipe),
            "name": str(self.recipe),
            "loss": self.loss.to_json(),
            "chosen": self.chosen,
        }


def prepare(
    model: onnx.ModelProto, crops_uint8: Crops, recipes: Sequence[Recipe], progress: Progress | None = None
) -> list[Prepared]:
    """The network as each recipe prepares it, on the same calibration crops (N, H, W, 3) BGR; the given one is not changed.

    Recipes that differ in their ranges alone share one measurement.

    Raises:
        CalibrationError: the network cannot be quantised (see `place_qdq`), or holds values that are no numbers.
        BackendUnavailableError: ONNX Runtime, or NNCF where a recipe needs it, is not installed.
    """
    shared: dict[tuple[bool, bool], tuple[onnx.ModelProto, Measured, Means | None]] = {}
    prepared, tensors = [], quantised_tensors(model)
    histograms = any(recipe.base == "lmedge" and recipe.ranges in _NEED_HISTOGRAMS for recipe in recipes)
    for recipe in recipes:
        if recipe.base == "nncf":
            from lmedge.calibration.nncf_base import nncf_base

            # NNCF would correct for weights as it rounds them; `place_qdq` rounds them to scales of its own.
            base = nncf_base(
                model, crops_uint8, bias_correction="none", range_estimator="mean-min-max", channel_alignment=False
            )
            means = measure_means(base.float_model, crops_uint8) if recipe.correct_bias else None
            prepared.append(Prepared(recipe, base.float_model, base.ranges, base.tool_versions, means))
            continue
        steps = (recipe.equalise, recipe.correct_bias)
        if steps not in shared:
            started = equalise(model, crops_uint8) if recipe.equalise else model
            measured = measure(started, tensors, crops_uint8, histograms=histograms, progress=progress)
            shared[steps] = started, measured, measure_means(started, crops_uint8) if recipe.correct_bias else None
        started, measured, means = shared[steps]
        versions = {name: version(name) for name in ("onnxruntime", "onnx")}
        prepared.append(Prepared(recipe, started, measured, versions, means))
    return prepared


def choose(
    prepared: Sequence[Prepared], dialect: Dialect, judge: Callable[[onnx.ModelProto], NetworkLoss]
) -> tuple[Prepared, list[RecipeResult]]:
    """The prepared network whose int8 form adds least to the error, and what each added.

    Args:
        judge: says how an int8 network differs from the float one, on faces that were not calibrated on.

    Raises:
        CalibrationError: nothing to choose from, or no recipe whose answers are numbers.
    """
    if not prepared:
        raise CalibrationError("There is no recipe to choose from.")
    losses = [judge(each.place(dialect)) for each in prepared]
    uppers = [loss.added.upper for loss in losses]
    if not np.isfinite(uppers).any():
        raise CalibrationError(f"No recipe gives an int8 network of the dialect {dialect} whose answers are numbers.")
    best = int(np.nanargmin(uppers))
    results = [
        RecipeResult(dialect, each.recipe, loss, index == best)
        for index, (each, loss) in enumerate(zip(prepared, losses, strict=True))
    ]
    return prepared[best], results


def candidates(recipe: Recipe, *, base: str, ranges: str) -> list[Recipe]:
    """The recipes to choose from: each base and each range method that is named, all of them for "best".

    NNCF brings ranges of its own and stands there once.

    Raises:
        CalibrationError: a name that is none of theirs.
    """
    found = []
    if base in ("lmedge", BEST):
        tried = _TRIED if ranges == BEST else ((ranges, recipe.coverage),)
        found += [replace(recipe, ranges=cast("RangeMethod", method), coverage=coverage) for method, coverage in tried]
    if base in ("nncf", BEST):
        found.append(replace(recipe, base="nncf"))
    if not found:
        raise CalibrationError(f"base must be one of {', '.join((*BASES, BEST))}; got {base!r}.")
    return found
