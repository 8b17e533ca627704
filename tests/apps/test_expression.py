"""Openings of eyes and mouth against heads whose true openings are known, and the resting face that they are held against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.apps.expression import Baseline, BaselineLearner, FaceMeter, FaceRatios
from lmedge.apps.openings import find_ring, foreshortening
from lmedge.data.synthetic import Expression, Scene, render_face
from lmedge.data.synthetic.camera import HeadPose, draw_pose
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import AFLW_19, COFW_29, IBUG_68, MMLAB_5, WFLW_98, Curve, LandmarkSchema
from tests.apps.heads import Face, Sitter

OPEN = FaceRatios(right_eye=0.3, left_eye=0.3, mouth=0.02, brow=0.3, smile=0.8)
RINGS = pytest.mark.parametrize("schema", [IBUG_68, WFLW_98, COFW_29], ids=lambda schema: schema.name)


def landmarks_of(points_px: np.ndarray, schema: LandmarkSchema) -> Landmarks:
    return Landmarks(points_px.astype(np.float32), schema, FaceBox.around(points_px))


# Rings


@RINGS
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_lids_that_face_each_other_are_paired(schema: LandmarkSchema, side: str) -> None:
    ring = find_ring(schema, f"{side}_eye", (f"{side}_eye_outer", f"{side}_eye_inner"))
    for one, other in ring.pairs:
        names = {schema.point_names[one], schema.point_names[other]}
        upper, lower = ("top", "bottom") if schema is COFW_29 else ("upper", "lower")
        assert {name.replace(upper, lower) for name in names} == {next(name for name in names if lower in name)}
    assert 2 * len(ring.pairs) + 2 == len(next(c for c in schema.curves if c.name == f"{side}_eye").indices)


@pytest.mark.parametrize("schema", [MMLAB_5, AFLW_19], ids=lambda schema: schema.name)
def test_point_sets_without_lids_are_refused_with_what_to_take_instead(schema: LandmarkSchema) -> None:
    with pytest.raises(InputError, match=r"expected a closed curve 'right_eye'.*zoo:ibug68"):
        FaceMeter(schema)


def test_an_eye_with_more_points_above_than_below_is_refused() -> None:
    names = ("right_eye_outer", "up", "top", "right_eye_inner", "low")
    own = LandmarkSchema(
        "OWN", names, {"eyes": (0,)}, ((0,), (3,)), "", (Curve("right_eye", (0, 1, 2, 3, 4), closed=True),), (0, 1, 2, 3, 4)
    )
    with pytest.raises(InputError, match="got 2 and 1"):
        find_ring(own, "right_eye", ("right_eye_outer", "right_eye_inner"))


def test_landmarks_of_another_schema_are_refused() -> None:
    with pytest.raises(InputError, match="Expected landmarks of WFLW_98; got IBUG_68"):
        FaceMeter(WFLW_98).read(Sitter().landmarks(Face()))


# Ratios


def test_the_ratio_of_an_eye_is_the_definition_worked_by_hand() -> None:
    """Corners 6 px apart; lids 2 px apart at one third and 1 px at the other."""
    points = Sitter().points_px(Face())
    eye = next(curve.indices for curve in IBUG_68.curves if curve.name == "right_eye")
    points[list(eye)] = np.array([[0, 0], [2, -1], [4, -0.5], [6, 0], [4, 0.5], [2, 1]]) + [100, 100]
    assert FaceMeter(IBUG_68).read(landmarks_of(points, IBUG_68)).right_eye == pytest.approx(1.5 / 6, rel=1e-5)


@RINGS
@given(st.floats(0.3, 3), st.floats(-100, 100), st.floats(-180, 180))
def test_size_place_and_roll_of_a_face_change_nothing(
    schema: LandmarkSchema, zoom: float, shift: float, roll_deg: float
) -> None:
    points, angle = Sitter(schema=schema).points_px(Face(closure=0.3, mouth_gap_mm=9)), np.radians(roll_deg)
    turned = zoom * points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + shift
    meter = FaceMeter(schema)
    expected, found = (meter.read(landmarks_of(p, schema)) for p in (points, turned))
    assert vars(found) == pytest.approx(vars(expected), rel=2e-3)


@given(st.floats(-60, 60), st.floats(-35, 35), st.floats(-40, 40), st.floats(-30, 30))
def test_foreshortening_is_what_the_rotation_does_to_widths_and_heights(
    yaw: float, pitch: float, roll: float, slant: float
) -> None:
    pose, across = HeadPose(yaw, pitch, roll), np.array([np.cos(np.radians(slant)), 0, np.sin(np.radians(slant))])
    width, height = (np.linalg.norm(pose.rotation[:2] @ axis) for axis in (across, np.array([0, 1, 0])))
    assert foreshortening(pose, across) == pytest.approx(width / height)


@pytest.mark.parametrize("yaw", [-40.0, 20.0, 40.0])
def test_a_turn_of_the_head_leaves_an_opening_as_it_is(yaw: float) -> None:
    meter, sitter = FaceMeter(WFLW_98), Sitter(schema=WFLW_98)
    front, turned = (Face(closure=0.2, mouth_gap_mm=12, pose=HeadPose(angle, 0, 0)) for angle in (0.0, yaw))
    before, after = (meter.read(sitter.landmarks(face), face.pose) for face in (front, turned))
    assert after.right_eye == pytest.approx(before.right_eye, rel=0.1)
    assert after.left_eye == pytest.approx(before.left_eye, rel=0.1)
    assert after.mouth == pytest.approx(before.mouth, rel=0.1)


@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98], ids=lambda schema: schema.name)
def test_openings_follow_the_truth_on_any_person_and_expression_to_45_degrees(schema: LandmarkSchema) -> None:
    """Measured over 400 heads: 0.988 for single eyes and 0.993 for the mouth; with estimated angles 0.986 and 0.992.

    On these 70 it is 0.968 and 0.995: one person's far eye is narrower than any generic head's.
    """
    rng, rows = np.random.default_rng(11), []
    meter = FaceMeter(schema)
    for index in range(70):
        pose = draw_pose(rng)
        scene = Scene(pose=replace(pose, yaw_deg=float(np.clip(pose.yaw_deg * 1.5, -45, 45))), plain=index % 2 == 0)
        face = render_face((11, index), 48, scene)
        ratios = meter.read(landmarks_of(face.points(schema), schema), face.pose)
        rows.append((*face.eye_opening, face.mouth_opening, ratios.right_eye, ratios.left_eye, ratios.mouth))
    table = np.array(rows)
    eyes = np.corrcoef(table[:, :2].ravel(), table[:, 3:5].ravel())[0, 1]
    mouth = np.corrcoef(table[:, 2], table[:, 5])[0, 1]
    assert eyes > 0.95
    assert mouth > 0.97


def test_brows_that_rise_and_a_mouth_that_smiles_are_told_on_the_same_person() -> None:
    faces = {
        name: render_face((4, 1), 48, Scene(HeadPose(10, 5, 3), expression, occluders=()))
        for name, expression in {"rest": Expression(), "raised": Expression(brow_raise=6), "smile": Expression(smile=8)}.items()
    }
    meter = FaceMeter(WFLW_98)
    ratios = {name: meter.read(landmarks_of(face.points_px, WFLW_98), face.pose) for name, face in faces.items()}
    rest = Baseline(ratios["rest"])
    raised, smile = (rest.change(ratios[name]) for name in ("raised", "smile"))
    assert raised.brow > 0.1
    assert abs(raised.smile) < 0.02
    assert smile.smile > 0.1
    assert abs(smile.brow) < 0.05


# The resting face


def feed(
    learner: BaselineLearner, rate: float, seconds: float, ratios: FaceRatios = OPEN
) -> tuple[float | None, Baseline | None]:
    """When the baseline was there, and what it is."""
    for index in range(round(seconds * rate) + 1):
        baseline = learner.add(index / rate, ratios, HeadPose(8, -4, 0))
        if baseline is not None:
            return index / rate, baseline
    return None, None


@pytest.mark.parametrize("rate", [10, 15, 30, 60])
def test_three_seconds_are_learnt_at_any_frame_rate(rate: int) -> None:
    when, baseline = feed(BaselineLearner(), rate, 5)
    assert when == pytest.approx(3.0)
    assert baseline is not None
    assert (baseline.yaw_deg, baseline.pitch_deg) == (8, -4)
    assert vars(baseline.ratios) == pytest.approx(vars(OPEN))


def test_blinks_while_learning_do_not_move_it() -> None:
    learner, baseline = BaselineLearner(), None
    for index in range(91):
        blinks = index % 30 < 8
        baseline = learner.add(index / 30, replace(OPEN, right_eye=0.01, left_eye=0.01) if blinks else OPEN)
    assert baseline is not None
    assert baseline.ratios.right_eye == pytest.approx(0.3)


def test_shut_eyes_are_no_resting_face_and_learning_goes_on() -> None:
    learner = BaselineLearner()
    assert feed(learner, 30, 6, replace(OPEN, right_eye=0.05, left_eye=0.05)) == (None, None)
    later = [learner.add(6 + index / 30, OPEN) for index in range(1, 120)]
    found = [baseline for baseline in later if baseline is not None]
    assert found
    assert found[-1].ratios.right_eye == pytest.approx(0.3)


def test_time_without_a_face_is_not_learnt_from() -> None:
    learner = BaselineLearner()
    for index in range(61):
        assert learner.add(index / 30, OPEN) is None
    assert learner.add(30.0, OPEN) is None
    assert learner.seen_s == pytest.approx(2.0)


def test_what_a_network_leaves_of_a_shut_eye_is_taken_off() -> None:
    """An eye that shows 60 % of its opening when shut is half shut at 80 %."""
    change = Baseline(OPEN).change(replace(OPEN, right_eye=0.24, left_eye=0.18), shut_eye_part=0.6)
    assert change.right_eye == pytest.approx(0.5)
    assert change.left_eye == pytest.approx(0.0)


def test_a_baseline_without_open_eyes_is_refused() -> None:
    with pytest.raises(InputError, match="open eyes"):
        Baseline(replace(OPEN, left_eye=0.0))
    with pytest.raises(InputError, match="positive"):
        BaselineLearner(0)
