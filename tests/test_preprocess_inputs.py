"""What goes into a crop: images of any kind, boxes of any detector, and the parameters that a bundle stores."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.errors import InputError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import BoxFit, PreprocessSpec, check_image, crop_face, crop_transform, fit_boxes, reference_box, warp

Image = npt.NDArray[np.uint8]

SPEC = PreprocessSpec()
COLOR = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)


class TestImages:
    @pytest.mark.parametrize(
        "image",
        [
            np.repeat(COLOR, 2, axis=0)[::2],
            COLOR[::-1][::-1],
            np.asfortranarray(COLOR),
            np.concatenate([COLOR, COLOR[:, :, :1]], axis=2)[:, :, :3],
            COLOR[:, :, ::-1].copy()[:, :, ::-1],
        ],
        ids=["every second row", "turned over twice", "Fortran order", "part of four channels", "channels backwards"],
    )
    def test_any_stride_works(self, image: Image) -> None:
        checked = check_image(image)
        assert checked.flags.c_contiguous
        assert np.array_equal(checked, COLOR)

    def test_a_part_of_a_larger_image_is_taken_as_it_is_where_that_is_asked_for(self) -> None:
        part = COLOR[3:30, 5:40]
        assert check_image(part, rows_apart=True) is part
        assert not np.shares_memory(check_image(part), part)
        for other in (COLOR[:, ::2], COLOR[::-1], COLOR[:, ::-1], COLOR[:, :, ::-1]):
            assert check_image(other, rows_apart=True).flags.c_contiguous
        crop, _ = crop_face(COLOR[3:30, 5:40].copy(), FaceBox(5, 5, 20, 20), SPEC)
        assert np.array_equal(warp(part, crop_transform(FaceBox(5, 5, 20, 20), SPEC), SPEC.border_value), crop)

    @pytest.mark.parametrize("side", [1e-4, 1e-300, 2e6, 1e300])
    def test_a_box_of_a_size_that_no_face_has_is_refused(self, side: float) -> None:
        with pytest.raises(InputError, match="px long"):
            crop_face(COLOR, FaceBox(20 - side / 2, 20 - side / 2, 20 + side / 2 + 1e-14, 20 + side / 2 + 1e-14), SPEC)

    @pytest.mark.parametrize("gray", [COLOR[:, :, 0], COLOR[:, :, :1]], ids=["H W", "H W 1"])
    def test_gray_is_repeated(self, gray: Image) -> None:
        assert np.array_equal(check_image(gray), np.repeat(COLOR[:, :, :1], 3, axis=2))

    def test_the_callers_image_is_not_changed(self) -> None:
        before = COLOR.copy()
        crop_face(COLOR, FaceBox(10, 10, 30, 30), SPEC)
        assert np.array_equal(COLOR, before)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((40, 50, 4), np.uint8), "Drop the alpha channel: image[:, :, :3]"),
            (np.zeros((40, 50, 2), np.uint8), "(H, W, 3), BGR, or (H, W), gray; got (40, 50, 2)"),
            (np.zeros((3, 40, 50), np.uint8), "got (3, 40, 50)"),
            (np.zeros((1, 40, 50, 3), np.uint8), "got (1, 40, 50, 3)"),
            (np.zeros((0, 50, 3), np.uint8), "got (0, 50, 3)"),
            (np.zeros((40, 0), np.uint8), "got (40, 0)"),
            (np.zeros((40, 50, 3), np.uint16), "got uint16 of shape (40, 50, 3). Convert it first: (image / 257)"),
            (np.zeros((40, 50, 3), np.float32), "got float32 of shape (40, 50, 3). Convert it first: image.astype(np.uint8)"),
            (np.zeros((40, 50, 3), np.int8), "must be uint8; got int8"),
            (np.zeros((40, 50, 3), bool), "must be uint8; got bool"),
            ([[0, 1], [2, 3]], "got list"),
            (None, "got NoneType"),
            ("face.jpg", "got str"),
        ],
    )
    def test_anything_else_is_refused_with_the_cure(self, image: object, message: str) -> None:
        with pytest.raises(InputError) as caught:
            check_image(image)
        assert message in str(caught.value)


coordinates = st.floats(-2000, 2000)
boxes = st.builds(
    lambda x, y, width, height: FaceBox(x, y, x + width, y + height, kind="reference"),
    coordinates,
    coordinates,
    st.floats(5, 500),
    st.floats(5, 500),
)


class TestBoxFits:
    @given(st.lists(boxes, min_size=1, max_size=9), st.floats(0.3, 3), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
    def test_a_fit_recovers_scale_and_shift(self, faces: list[FaceBox], scale: float, shift_x: float, shift_y: float) -> None:
        spec = PreprocessSpec(box_fits={"detector": BoxFit(scale, shift_x, shift_y)})
        detected = [FaceBox(*face.xyxy, kind="detector") for face in faces]
        fit = fit_boxes(detected, [reference_box(box, spec) for box in detected])
        assert (fit.scale, fit.shift_x, fit.shift_y) == pytest.approx((scale, shift_x, shift_y), abs=1e-4)

    def test_a_fit_is_not_pulled_by_a_bad_label(self) -> None:
        detected = [FaceBox(10 * i, 0, 10 * i + 100, 100, kind="d") for i in range(5)]
        references = [FaceBox(10 * i + 10, 20, 10 * i + 90, 100) for i in range(4)] + [FaceBox(0, 0, 9000, 9000)]
        assert fit_boxes(detected, references) == BoxFit(0.8, 0.0, 0.1)

    def test_reference_boxes_need_no_fit(self) -> None:
        box = FaceBox(1, 2, 3, 4)
        assert reference_box(box, SPEC) is box

    def test_the_fitted_box_is_a_square_on_the_moved_centre(self) -> None:
        spec = PreprocessSpec(box_fits={"yunet": BoxFit(0.8, 0.0, 0.15)})
        box = reference_box(FaceBox(100, 100, 180, 200, score=0.7, kind="yunet"), spec)
        assert box.xyxy.tolist() == pytest.approx([100, 125, 180, 205])
        assert (box.kind, box.score) == ("reference", 0.7)

    def test_a_kind_without_a_fit_is_refused(self) -> None:
        spec = PreprocessSpec(box_fits={"yunet": BoxFit(), "csv": BoxFit()})
        with pytest.raises(
            InputError, match=r"kind 'wflw'; this bundle knows reference, csv, yunet\. Give boxes of one of these"
        ):
            reference_box(FaceBox(1, 2, 3, 4, kind="wflw"), spec)


class TestSpec:
    def test_json_round_trip(self) -> None:
        spec = PreprocessSpec((96, 96), 1.4, {"yunet": BoxFit(0.79, 0.01, 0.15)}, border_value=127, mean=127.5, std=128)
        assert PreprocessSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"input_hw": (112, 96)}, "must be square"),
            ({"input_hw": (4, 4)}, "8 to 4096 px"),
            ({"crop_scale": 0.1}, "between 0.5 and 10"),
            ({"crop_scale": math.nan}, "between 0.5 and 10"),
            ({"interpolation": "cubic"}, "Only linear interpolation of BGR crops"),
            ({"color": "rgb"}, "Only linear interpolation of BGR crops"),
        ],
    )
    def test_what_is_not_defined_is_refused(self, fields: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            PreprocessSpec(**fields)  # type: ignore[arg-type]
