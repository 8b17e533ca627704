"""Labelled faces, picture files that are damaged, and the split that must never move."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.samples import FaceSample, check_labels, is_validation, photo_key_of, read_image, split_samples
from lmedge.errors import DataError
from lmedge.landmarks import FaceBox
from lmedge.schemas import MMLAB_5

Image = npt.NDArray[np.uint8]

POINTS = np.array([[15, 30], [35, 30], [25, 45], [17, 60], [33, 60]], np.float32)
PICTURE = np.random.default_rng(0).integers(0, 256, (96, 80, 3), dtype=np.uint8)


def sample(points: npt.NDArray[np.floating] = POINTS, key: str = "someone", **fields: object) -> FaceSample:
    return FaceSample(PICTURE, points.astype(np.float32), MMLAB_5, key, **fields)  # type: ignore[arg-type]


class TestSamples:
    def test_points_are_a_copy_that_cannot_change(self) -> None:
        points = POINTS.copy()
        face = sample(points)
        points[0] = 0
        assert face.points_px[0].tolist() == [15, 30]
        with pytest.raises(ValueError, match="read-only"):
            face.points_px[0] = 0

    def test_unknown_points_are_nan(self) -> None:
        points = POINTS.copy()
        points[4] = np.nan
        face = sample(points)
        assert face.known.tolist() == [True, True, True, True, False]
        assert face.box().xyxy.tolist() == [15, 30, 35, 60]

    @pytest.mark.parametrize(
        ("points", "message"),
        [
            (POINTS[:4], "list.txt:7: expected 5 points (x, y) for MMLAB_5, got an array of shape (4, 2)"),
            (POINTS.T, "got an array of shape (2, 5)"),
            (np.full((5, 2), np.nan), "infinite, missing or all in one place"),
            (np.where(POINTS == 45, np.inf, POINTS), "infinite, missing or all in one place"),
            (np.repeat(POINTS[:1], 5, axis=0), "infinite, missing or all in one place"),
        ],
    )
    def test_labels_that_are_no_face_are_refused_with_their_place(self, points: Image, message: str) -> None:
        with pytest.raises(DataError) as caught:
            sample(points, origin="list.txt:7")
        assert message in str(caught.value)
        assert str(caught.value).startswith("list.txt:7: ")

    def test_boxes_by_kind(self) -> None:
        drawn = FaceBox(5, 5, 50, 70, kind="wflw")
        face = sample(boxes={"wflw": drawn})
        assert face.box("wflw") is drawn
        assert face.box("reference").xyxy.tolist() == [15, 30, 35, 60]
        assert face.annotated_box() is drawn
        assert sample().annotated_box() == sample().box()

    def test_a_box_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"no box of kind 'yunet'; this face has \['reference', 'wflw'\]"):
            sample(boxes={"wflw": FaceBox(5, 5, 50, 70, kind="wflw")}).box("yunet")

    def test_the_picture_is_an_array_or_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "face.png"
        cv2.imwrite(str(file), PICTURE)
        assert sample().read_image() is PICTURE
        assert np.array_equal(FaceSample(file, POINTS, MMLAB_5, "someone").read_image(), PICTURE)


class TestPictureFiles:
    @pytest.fixture(params=[".jpg", ".png"])
    def content(self, request: pytest.FixtureRequest) -> bytes:
        return cv2.imencode(request.param, PICTURE)[1].tobytes()

    def test_a_whole_file_is_read(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "face").write_bytes(content)
        image = read_image(tmp_path / "face")
        assert (image.shape, image.dtype) == ((96, 80, 3), np.uint8)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
    def test_a_cut_file_is_refused(self, content: bytes, share: float, tmp_path: Path) -> None:
        (tmp_path / "face.jpg").write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=r"face\.jpg is not a complete image .* Replace or remove the file"):
            read_image(tmp_path / "face.jpg")

    @pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.9])
    def test_a_file_whose_end_is_zeros_is_refused(self, content: bytes, share: float, tmp_path: Path) -> None:
        """A download that broke off in a file of full length; of a JPEG like this OpenCV shows the rest in gray."""
        kept = int(share * len(content))
        (tmp_path / "face.jpg").write_bytes(content[:kept] + bytes(len(content) - kept))
        with pytest.raises(DataError, match="not a complete image"):
            read_image(tmp_path / "face.jpg")

    def test_bytes_after_the_end_do_no_harm(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "face").write_bytes(content + b"\0" * 100)
        assert read_image(tmp_path / "face").shape == (96, 80, 3)

    def test_a_text_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "face.jpg").write_text("<html>404</html>")
        with pytest.raises(DataError, match="not a complete image"):
            read_image(tmp_path / "face.jpg")

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"Cannot read the image .*none\.jpg: No such file"):
            read_image(tmp_path / "none.jpg")
        with pytest.raises(DataError, match=r"Cannot read the image .*: Is a directory"):
            read_image(tmp_path)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_gray_and_transparent_pictures_become_bgr(self, channels: int, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "face.png"), np.full((20, 10, channels), 77, np.uint8))
        assert np.array_equal(read_image(tmp_path / "face.png"), np.full((20, 10, 3), 77))

    @pytest.mark.data
    def test_no_published_photo_is_refused(self, data_folder: Path) -> None:
        photos = sorted((data_folder / "300w").rglob("*.jpg"))[::20] + sorted((data_folder / "mmlab5").rglob("*.jpg"))[::50]
        assert len(photos) > 200
        for photo in photos:
            assert read_image(photo).ndim == 3


class TestLabels:
    def test_labels_inside_the_image_count_zero(self) -> None:
        corners = np.array([[-0.5, -0.5], [79.5, 95.5], [40, 40]])
        assert check_labels(corners, (96, 80), "here") == 0

    @given(
        share=st.floats(0, 1).filter(lambda share: abs(share - 0.5) > 1e-6),
        extent=st.integers(10, 500),
        side=st.sampled_from(["left", "top", "right", "bottom"]),
    )
    def test_half_a_face_outside_is_kept_and_more_is_refused(self, share: float, extent: int, side: str) -> None:
        """A face that sticks out by a share of its extent, on each side of an image three times as large."""
        face = np.array([[0, 0.5], [0.5, 0], [1, 0.5], [0.5, 1]]) * extent
        start = -0.5 - share * extent if side in ("left", "top") else 3 * extent - 0.5 + (share - 1) * extent
        place = np.array([start, extent] if side in ("left", "right") else [extent, start])
        if share > 0.5:
            with pytest.raises(DataError, match=r"photo\.jpg: a label at \(.*\) is more than half a face outside the image"):
                check_labels(face + place, (3 * extent, 3 * extent), "photo.jpg")
        else:
            outside = check_labels(face + place, (3 * extent, 3 * extent), "photo.jpg")
            assert outside == (share > 0) or share < 1e-9

    def test_unknown_points_lie_nowhere(self) -> None:
        points = np.vstack([POINTS, [[math.nan, 9999]], [[math.nan, math.nan]]])
        assert check_labels(points, (96, 80), "here") == 0


# sha256 of the key, as a number, modulo 10. Changing any of these moves faces between training and validation for ever.
SPLIT = {
    "synthetic_0_0": False,
    "synthetic_0_7": False,
    "134212": False,
    "232194_1": True,
    "image_0123": True,
    "photo_1": False,
    "photo_7": True,
    "37_soccer_soccer_ball_37_45": False,
    "müller": False,
}


class TestSplit:
    @pytest.mark.parametrize(("key", "validation"), SPLIT.items())
    def test_the_split_never_moves(self, key: str, validation: bool) -> None:
        assert is_validation(key) is validation

    def test_a_tenth_is_for_validation(self) -> None:
        share = np.mean([is_validation(f"photo_{index}") for index in range(20000)])
        assert share == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / 20000))

    @pytest.mark.parametrize(
        ("stem", "numbered", "key"),
        [
            ("134212_1", True, "134212"),
            ("134212_2", True, "134212"),
            ("134212_2", False, "134212_2"),
            ("Image_0123_11", True, "image_0123"),
            ("IMG_A", True, "img_a"),
        ],
    )
    def test_faces_of_one_photo_share_its_key(self, stem: str, numbered: bool, key: str) -> None:
        assert photo_key_of(stem, numbered_faces=numbered) == key

    def test_splitting_keeps_the_order_and_loses_nothing(self) -> None:
        faces = [sample(key=f"photo_{index}") for index in range(60)]
        training, validation = split_samples(faces)
        assert training == [face for face in faces if not is_validation(face.photo_key)]
        assert validation == [face for face in faces if is_validation(face.photo_key)]
        assert len(validation) > 0
        assert not {face.photo_key for face in training} & {face.photo_key for face in validation}
