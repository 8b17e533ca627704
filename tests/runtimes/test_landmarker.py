"""FaceLandmarker: from an image and boxes to points in image pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge import Bundle, FaceBox, FaceLandmarker
from lmedge.errors import BackendUnavailableError, BundleError, DeviceUnavailableError, InputError, LmedgeError
from lmedge.preprocess import BoxFit
from lmedge.runtimes.fake import FakeRuntime
from lmedge.runtimes.landmarker import face_boxes
from tests.bundles import SCHEMA

# Its crop begins and ends between pixels, so that a crop of whole pixels is where it would be anyway.
BOX = [40.5, 30.5, 120.5, 110.5]
IMAGE = np.random.default_rng(3).integers(0, 256, (160, 200, 3), np.uint8)


@pytest.fixture
def landmarker(fake_faces: Bundle) -> Iterator[FaceLandmarker]:
    with FaceLandmarker.open(fake_faces, backend="fake") as opened:
        yield opened


def scripted(landmarker: FaceLandmarker, *answers: npt.NDArray[np.float64] | Exception) -> FaceLandmarker:
    assert isinstance(landmarker.runtime, FakeRuntime)
    landmarker.runtime.script(*answers)
    return landmarker


def test_points_come_back_in_image_pixels(landmarker: FaceLandmarker) -> None:
    centre, corner = np.full((5, 2), 0.5), np.zeros((5, 2))
    middle, edge = scripted(landmarker, centre, corner).predict(IMAGE, [BOX, BOX])
    np.testing.assert_allclose(middle.points_px, np.tile([80.5, 70.5], (5, 1)), atol=1e-5)
    # Fraction 0 is the outer edge of the crop: the centre less half of crop_scale × side.
    np.testing.assert_allclose(edge.points_px, np.tile([80.5 - 50.0, 70.5 - 50.0], (5, 1)), atol=1e-5)
    assert middle.schema == SCHEMA
    assert middle.box == FaceBox(*BOX)


def test_points_own_their_memory(landmarker: FaceLandmarker) -> None:
    first = landmarker.predict(IMAGE, [BOX])[0]
    kept = first.points_px.copy()
    landmarker.predict(IMAGE[::-1], [BOX])
    np.testing.assert_array_equal(first.points_px, kept)
    assert not first.points_px.flags.writeable


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0,))])
def test_no_box_no_face(landmarker: FaceLandmarker, boxes: npt.NDArray[np.float64]) -> None:
    assert landmarker.predict(IMAGE, boxes) == []


def test_faces_come_in_the_order_of_the_boxes(landmarker: FaceLandmarker) -> None:
    other = [60.0, 20.0, 150.0, 110.0]
    both = landmarker.predict(IMAGE, [BOX, other])
    alone = [landmarker.predict(IMAGE, np.array([box]))[0] for box in (BOX, other)]
    for left, right in zip(both, alone, strict=True):
        np.testing.assert_array_equal(left.points_px, right.points_px)


def test_gray_is_replicated(landmarker: FaceLandmarker) -> None:
    gray = IMAGE[:, :, 0]
    expected = landmarker.predict(np.dstack([gray] * 3), [BOX])[0].points_px
    for image in (gray, gray[:, :, None]):
        np.testing.assert_array_equal(landmarker.predict(image, [BOX])[0].points_px, expected)


def test_strides_do_not_matter(landmarker: FaceLandmarker) -> None:
    wide = np.repeat(IMAGE, 2, axis=1)
    expected = landmarker.predict(IMAGE, [BOX])[0].points_px
    np.testing.assert_array_equal(landmarker.predict(wide[:, ::2], [BOX])[0].points_px, expected)
    np.testing.assert_array_equal(landmarker.predict(np.asfortranarray(IMAGE), [BOX])[0].points_px, expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((50, 50, 4), np.uint8), "alpha"),
        (np.zeros((50, 50, 2), np.uint8), r"\(50, 50, 2\)"),
        (np.zeros((50, 50, 3), np.uint16), "257"),
        (np.zeros((50, 50, 3), np.float32), "astype"),
        (np.zeros((0, 50, 3), np.uint8), "shape"),
        ("face.jpg", "NumPy array"),
        (None, "NumPy array"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused(landmarker: FaceLandmarker, image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        landmarker.predict(image, [[5, 5, 20, 20]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[40, 30, 40, 110]], "x_min < x_max"),
        ([[40, 110, 120, 30]], "y_min < y_max"),
        ([[40, 30, np.nan, 110]], "finite"),
        ([[400, 30, 500, 110]], "outside the image"),
        ([[-90, 30, -10, 110]], "outside the image"),
        ([40, 30, 120, 110], r"give \[box\]"),
        ([[40, 30, 120]], r"\(1, 3\)"),
        ([["a", "b", "c", "d"]], "numbers"),
    ],
)
def test_a_box_that_cannot_be_used_is_refused(landmarker: FaceLandmarker, boxes: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        landmarker.predict(IMAGE, boxes)  # type: ignore[arg-type]


def test_one_bad_box_among_good_ones_runs_nothing(landmarker: FaceLandmarker) -> None:
    scripted(landmarker, np.full((5, 2), 0.25))
    with pytest.raises(InputError, match="outside"):
        landmarker.predict(IMAGE, [BOX, [400, 30, 500, 110]])
    middle = landmarker.predict(IMAGE, [BOX])[0]
    np.testing.assert_allclose(middle.points_px[0], [55.5, 45.5], atol=1e-5)


def test_boxes_of_another_kind_go_through_their_fit(fake_faces: Bundle) -> None:
    spec = dataclasses.replace(fake_faces.manifest.preprocess, box_fits={"yunet": BoxFit(0.5, 0.0, 0.25)})
    bundle = dataclasses.replace(fake_faces, manifest=dataclasses.replace(fake_faces.manifest, preprocess=spec))
    with FaceLandmarker.open(bundle, backend="fake") as landmarker:
        found = scripted(landmarker, np.full((5, 2), 0.5), np.full((5, 2), 0.5))
        by_argument = found.predict(IMAGE, [BOX], box_kind="yunet")[0]
        by_box = found.predict(IMAGE, [FaceBox(*BOX, kind="yunet")])[0]
        np.testing.assert_allclose(by_argument.points_px[0], [80.5, 90.5], atol=1e-5)
        np.testing.assert_array_equal(by_argument.points_px, by_box.points_px)
        with pytest.raises(InputError, match="this bundle knows reference, yunet"):
            landmarker.predict(IMAGE, [BOX], box_kind="wflw")


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_an_error(landmarker: FaceLandmarker, poison: float) -> None:
    answer = np.full((5, 2), 0.5)
    answer[3, 1] = poison
    with pytest.raises(LmedgeError, match="lmedge verify"):
        scripted(landmarker, answer).predict(IMAGE, [BOX])


def test_an_error_of_the_engine_reaches_the_caller(landmarker: FaceLandmarker) -> None:
    with pytest.raises(MemoryError):
        scripted(landmarker, MemoryError()).predict(IMAGE, [BOX])


def test_a_closed_landmarker_says_so(landmarker: FaceLandmarker) -> None:
    landmarker.close()
    landmarker.close()
    with pytest.raises(InputError, match="closed"):
        landmarker.predict(IMAGE, [BOX])


def test_opening_takes_the_folder_too(fake_faces: Bundle) -> None:
    for folder in (fake_faces.root, str(fake_faces.root)):
        with FaceLandmarker.open(folder, backend="fake") as landmarker:
            assert landmarker.schema == SCHEMA


def test_opening_never_falls_back(fake_faces: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no int8 for fake"):
        FaceLandmarker.open(fake_faces, backend="fake", precision="int8")
    with pytest.raises(DeviceUnavailableError, match="cuda"):
        FaceLandmarker.open(fake_faces, backend="fake", device="cuda")
    with pytest.raises(BackendUnavailableError, match="Did you mean fake"):
        FaceLandmarker.open(fake_faces, backend="fak")
    with pytest.raises(BundleError, match="is no bundle"):
        FaceLandmarker.open(tmp_path, backend="fake")


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2, *[st.floats(1e-2, 1e6)] * 2), max_size=5))
def test_boxes_survive_the_way_through_an_array(rows: list[tuple[float, float, float, float]]) -> None:
    boxes = [FaceBox(x, y, x + width, y + height, kind="csv") for x, y, width, height in rows]
    array = np.array([box.xyxy for box in boxes]).reshape(-1, 4)
    assert face_boxes(array, "csv") == face_boxes(array.tolist(), "csv") == face_boxes(boxes) == boxes
