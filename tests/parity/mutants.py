"""A runtime that computes the tiny network with NumPy, and the ways in which a deployment goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.bundle import ANY_ARCH, Artifact, Bundle, Manifest, network_specs, write_bundle
from lmedge.runtimes.answers import Answers
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus
from lmedge.runtimes.golden import Golden
from tests.bundles import SCHEMA, SPEC, artifact_of, tiny_answer, tiny_golden

Answer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
# Crops → confidence (N, K).
Sureness = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

SIZE_PX = SPEC.input_hw[0]


class AnyAnswer(Runtime):
    """Answers what `answer` says."""

    name = "numpy"
    formats = ("numpy",)
    answer: Answer
    sureness: Sureness

    @classmethod
    def status(cls) -> RuntimeStatus:
        return RuntimeStatus(True, np.__version__, ("cpu",), "", "")

    def _open(self) -> None:
        self.answer, self.sureness = tiny_answer, tiny_confidence

    def _infer(self, feeds: Results) -> Results:
        points = {"landmarks": np.ascontiguousarray(self.answer(feeds["image"]), np.float32)}
        if len(self.outputs) == 1:
            return points
        return {**points, "confidence": np.ascontiguousarray(self.sureness(feeds["image"]), np.float32)}


def tiny_confidence(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, K) in [0, 1]: a logistic curve over the points that another tiny network finds."""
    return np.asarray(1 / (1 + np.exp(-8 * (tiny_answer(crops, seed=3)[..., 0] - 0.4))), np.float32)


def confident_answers(crops: npt.NDArray[np.uint8]) -> Answers:
    """What a reference with both outputs says."""
    return Answers(tiny_answer(crops), tiny_confidence(crops))


def lose_a_point(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    answer = tiny_answer(crops)
    answer[:, 3] = 0
    return answer


def one_not_a_number(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    answer = tiny_answer(crops)
    answer[0, 1, 0] = np.nan
    return answer


MUTANTS: dict[str, Answer] = {
    "R and B swapped": lambda crops: tiny_answer(crops[..., ::-1]),
    "half a pixel to the right and down": lambda crops: tiny_answer(crops) + np.float32(0.5 / SIZE_PX),
    "x and y swapped": lambda crops: tiny_answer(crops)[..., ::-1],
    "doubled output": lambda crops: tiny_answer(crops) * 2,
    "mean omitted": lambda crops: tiny_answer(crops, mean=0.0),
    "another network": lambda crops: tiny_answer(crops, seed=1),
    "the crop before": lambda crops: tiny_answer(np.roll(crops, 1, axis=1)),
    "not a number": one_not_a_number,
    "one lost point": lose_a_point,
}


def one_sure_of_nothing(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    sure = tiny_confidence(crops)
    sure[0, 0] = np.nan
    return sure


CONFIDENCE_MUTANTS: dict[str, Sureness] = {
    "negated": lambda crops: 1 - tiny_confidence(crops),
    "the same for all": lambda crops: np.full_like(tiny_confidence(crops), 0.5),
    "of another point": lambda crops: np.roll(tiny_confidence(crops), 1, axis=1),
    "not a number": one_sure_of_nothing,
}


def numpy_artifact(folder: Path, precision: str = "fp32", *, confidence: bool = False) -> Artifact:
    """A file for `AnyAnswer`; what is in it does not matter."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"model.{precision}.numpy"
    file.write_text(precision)
    outputs = network_specs(SPEC, SCHEMA, confidence=confidence)[1]
    return artifact_of(file, format="numpy", precision=precision, serves={"numpy": (ANY_ARCH,)}, outputs=outputs)


def numpy_bundle(folder: Path, precision: str = "fp32", *, confidence: bool = False) -> Bundle:
    """A bundle for `AnyAnswer` with the tiny network's golden vectors."""
    artifact = numpy_artifact(folder / "source", precision, confidence=confidence)
    manifest = Manifest(name="numpy", schema=SCHEMA, preprocess=SPEC, artifacts=(artifact,))
    golden = tiny_golden()
    if confidence:
        golden = Golden.record(golden.frames, golden.boxes_xyxy, SPEC, confident_answers)
    return write_bundle(folder / "bundle", manifest, golden.to_bytes())
