"""A runtime that computes the tiny network with NumPy, and the ways in which a deployment goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.bundle import ANY_ARCH, Artifact, Bundle, Manifest, write_bundle
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus
from tests.bundles import SCHEMA, SPEC, artifact_of, tiny_answer, tiny_golden

Answer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

SIZE_PX = SPEC.input_hw[0]


class AnyAnswer(Runtime):
    """Answers what `answer` says."""

    name = "numpy"
    formats = ("numpy",)
    answer: Answer

    @classmethod
    def status(cls) -> RuntimeStatus:
        return RuntimeStatus(True, np.__version__, ("cpu",), "", "")

    def _open(self) -> None:
        self.answer = tiny_answer

    def _infer(self, feeds: Results) -> Results:
        return {"landmarks": np.ascontiguousarray(self.answer(feeds["image"]), np.float32)}


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


def numpy_artifact(folder: Path, precision: str = "fp32") -> Artifact:
    """A file for `AnyAnswer`; what is in it does not matter."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"model.{precision}.numpy"
    file.write_text(precision)
    return artifact_of(file, format="numpy", precision=precision, serves={"numpy": (ANY_ARCH,)})


def numpy_bundle(folder: Path, precision: str = "fp32") -> Bundle:
    """A bundle for `AnyAnswer` with the tiny network's golden vectors."""
    artifact = numpy_artifact(folder / "source", precision)
    manifest = Manifest(name="numpy", schema=SCHEMA, preprocess=SPEC, artifacts=(artifact,))
    return write_bundle(folder / "bundle", manifest, tiny_golden().to_bytes())
