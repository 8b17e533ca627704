"""What networks leave of a shut eye: measured on rendered people, as known for the trained bundles."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge import FaceLandmarker
from lmedge.apps.driver import shut_eye_part_of
from lmedge.apps.driver.network_lids import KNOWN_PARTS, shut_eye_parts
from lmedge.data.synthetic import SyntheticFace
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import IBUG_68
from tests.requirements import require


def exact(face: SyntheticFace) -> Landmarks:
    points = face.points(IBUG_68)
    return Landmarks(points, IBUG_68, FaceBox.around(points))


def test_exact_points_leave_little() -> None:
    parts = shut_eye_parts(exact, 6)
    assert len(parts) == 6
    assert 0 < np.median(parts) < 0.2
    assert np.array_equal(parts, shut_eye_parts(exact, 6))


def test_no_people_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        shut_eye_parts(exact, 0)


@pytest.mark.parametrize("bundle", ["zoo:ibug68", "zoo:ibug68_fast", "zoo:wflw98"])
def test_a_trained_bundle_leaves_what_is_known_of_it(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require("onnxruntime")
    with FaceLandmarker.open(bundle, threads=1) as landmarker:
        known = shut_eye_part_of(landmarker)
        assert known == KNOWN_PARTS[landmarker.bundle.manifest.name]
        # A bundle that is not in the table is measured.
        monkeypatch.setattr("lmedge.apps.driver.network_lids.KNOWN_PARTS", {})
        assert shut_eye_part_of(landmarker) == pytest.approx(known, abs=0.06)


def test_a_bundle_without_eyelids_is_refused() -> None:
    require("onnxruntime")
    with FaceLandmarker.open("zoo:mmlab5", threads=1) as landmarker, pytest.raises(InputError, match="MMLAB_5 does not say"):
        shut_eye_part_of(landmarker)
