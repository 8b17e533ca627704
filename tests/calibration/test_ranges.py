"""From extremes per crop to one range per tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests import requirements

requirements.require("onnx", "onnxruntime")

from lmedge.calibration.ranges import Extremes, measure_extremes  # noqa: E402
from tests.bundles import SPEC, random_crops, tiny_onnx, tiny_weights  # noqa: E402

VALUES = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32))


def one(greatest: np.ndarray, coverage: float) -> tuple[np.float32, np.float32]:
    return Extremes({"t": -greatest}, {"t": greatest}).ranges(coverage)["t"]


def test_the_extremes_are_those_of_the_arithmetic(tmp_path: Path) -> None:
    crops = random_crops(5)
    found = measure_extremes(tiny_onnx(tmp_path), ["normalised", "features", "active"], crops)
    normalised = (crops.astype(np.float32) - SPEC.mean) / SPEC.std
    np.testing.assert_array_equal(found.least["normalised"], normalised.min(axis=(1, 2, 3)))
    np.testing.assert_array_equal(found.greatest["normalised"], normalised.max(axis=(1, 2, 3)))
    np.testing.assert_array_equal(found.greatest["active"], np.maximum(found.greatest["features"], 0))
    assert tiny_weights()["kernel"].size > 1
    assert (found.least["features"] < found.greatest["features"]).all()


@given(VALUES)
def test_coverage_1_is_min_max(greatest: np.ndarray) -> None:
    least, most = one(greatest, 1.0)
    assert most == greatest.max()
    assert least == (-greatest).min()


@given(VALUES, st.floats(0.51, 1.0))
def test_a_range_covers_what_it_promises_and_no_order_changes_it(greatest: np.ndarray, coverage: float) -> None:
    least, most = one(greatest, coverage)
    assert (greatest <= most).mean() >= coverage - 1e-9
    assert (-greatest >= least).mean() >= coverage - 1e-9
    assert most in greatest, "a value that was seen"
    assert one(greatest[::-1], coverage) == (least, most)


@given(VALUES)
def test_less_coverage_never_widens_a_range(greatest: np.ndarray) -> None:
    tops = [one(greatest, coverage)[1] for coverage in (0.6, 0.8, 0.95, 1.0)]
    assert tops == sorted(tops)


@pytest.mark.parametrize(("count", "left_out"), [(10, 0), (19, 0), (20, 0), (21, 1), (100, 4), (300, 14)])
def test_few_crops_all_count(count: int, left_out: int) -> None:
    greatest = np.arange(count, dtype=np.float32)
    assert one(greatest, 0.95)[1] == count - 1 - left_out
