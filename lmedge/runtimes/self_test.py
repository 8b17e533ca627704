"""The self-test at opening: an engine has to give the recorded answers to the recorded crops before anyone sees another one.

It takes two calls for each golden crop, some milliseconds. Each crop is asked twice, among other neighbours: an engine that
answers from memory, or leaves its last answer where it was, gives the first answers right. `lmedge verify` checks more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmedge.bundle import Bundle
from lmedge.errors import BundleError, ParityError
from lmedge.runtimes.answers import Answers, all_answers
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.gates import Difference, GateLimits, confidence_gates
from lmedge.runtimes.golden import Golden


@dataclass(frozen=True)
class SelfTest:
    """Whether an opened engine was tested, and how.

    Attributes:
        passed: False only where there was no test: an engine that fails is not opened.
        remark: for people: "the recorded answers within 0.0003 px", or why there was none.
        max_px: largest difference of a point from the recorded answer, in pixels of the crop; None without a test.
    """

    passed: bool
    remark: str
    max_px: float | None = None


NOT_ASKED = SelfTest(False, "not tested: the self-test was switched off")


def self_test_engine(runtime: Runtime, bundle: Bundle, limits: GateLimits | None = None) -> SelfTest:
    """Asks an opened engine for the golden answers; the limits are those of its precision.

    Raises:
        ParityError: it gives others.
        BundleError: the golden vectors are of another network; DigestMismatchError: they were changed.
    """
    if bundle.manifest.golden is None:
        return SelfTest(False, f"not tested: {bundle.root} has no golden vectors")
    golden, limits = Golden.from_file(bundle.golden_file()), limits or GateLimits()
    shapes = golden.crops.shape[1:3], golden.fractions.shape[1]
    if shapes != (bundle.manifest.preprocess.input_hw, bundle.manifest.schema.num_points):
        raise BundleError(f"The golden vectors of {bundle.root} are of another network. Build the bundle again.")
    reversed_crops = np.ascontiguousarray(golden.crops[::-1])
    found = _joined(all_answers(runtime, golden.crops), all_answers(runtime, reversed_crops))
    recorded, backwards = golden.answers, None if golden.confidence is None else golden.confidence[::-1]
    wanted = _joined(recorded, Answers(golden.fractions[::-1], backwards))
    precision = runtime.artifact.precision
    difference = Difference.between(found.fractions, wanted.fractions, golden.crops.shape[2])
    limit = limits.golden_px(precision)
    # Not a number is above every limit.
    failures = [] if difference.max_px <= limit else [f"a point lies {difference.max_px:.3g} px off, the limit is {limit:g} px"]
    if _repeats(found, wanted):
        failures.append("different crops got the same answer")
    for gate in confidence_gates(precision, found, wanted, limits, golden=True):
        if not gate.passed:
            failures.append(f"confidence is {gate.value:.3g} off, the limit is {gate.limit:g}")
    if failures:
        raise ParityError(
            f"{runtime.name} does not give the recorded answers for {runtime.artifact.path} on this machine: "
            f"{'; '.join(failures)}. "
            f"For more: lmedge verify {bundle.root} --backend {runtime.name}"
        )
    return SelfTest(True, f"gives the recorded answers within {difference.max_px:.2g} px", difference.max_px)


def _joined(first: Answers, second: Answers) -> Answers:
    sure = None
    if first.confidence is not None and second.confidence is not None:
        sure = np.concatenate([first.confidence, second.confidence])
    return Answers(np.concatenate([first.fractions, second.fractions]), sure)


def _repeats(found: Answers, wanted: Answers) -> bool:
    """Whether two crops got the very same answer where the reference gave two."""
    count = len(found.fractions) // 2
    return any(
        np.array_equal(found.fractions[one], found.fractions[other])
        and not np.array_equal(wanted.fractions[one], wanted.fractions[other])
        for one in range(count)
        for other in range(one)
    )
