"""Raised brows, smiles and blinks of one person over time, from exact points whose truth is known."""

from __future__ import annotations

import pytest

from lmedge.apps.expression_watch import ExpressionState, ExpressionWatch
from lmedge.data.synthetic import Expression, Scene, render_face
from lmedge.data.synthetic.camera import HeadPose
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema
from tests.apps.heads import Face, Sitter

AT_REST, SHUT = Face(), Face(closure=1.0)
SCHEMAS = pytest.mark.parametrize("schema", [IBUG_68, WFLW_98], ids=lambda schema: schema.name)


def rested(schema: LandmarkSchema = IBUG_68) -> ExpressionWatch:
    """A watch that has learnt the average head at rest, until 3.1 s."""
    watch, landmarks = ExpressionWatch(schema, shut_eye_part=0.15), Sitter(schema=schema).landmarks(AT_REST)
    for index in range(94):
        watch.update(index / 30, landmarks, AT_REST.pose)
    assert watch.baseline is not None
    return watch


def seen(watch: ExpressionWatch, faces: list[Face | None], *, start_s: float = 3.2, rate: float = 30) -> list[ExpressionState]:
    sitter = Sitter()
    return [
        watch.update(start_s + index / rate, None if face is None else sitter.landmarks(face), face.pose if face else None)
        for index, face in enumerate(faces)
    ]


@SCHEMAS
@pytest.mark.parametrize(
    ("expression", "told"),
    [
        (Expression(), (False, False)),
        (Expression(brow_raise=2), (False, False)),
        (Expression(brow_raise=5), (True, False)),
        (Expression(smile=3), (False, False)),
        (Expression(smile=5), (False, True)),
        (Expression(smile=6, brow_raise=6), (True, True)),
        (Expression(eye_closure=(1.0, 1.0)), (False, False)),
        (Expression(mouth_gap_mm=30), (False, False)),
    ],
    ids=["rest", "brows 2 mm", "brows 5 mm", "smile 3 mm", "smile 5 mm", "both", "shut eyes", "open mouth"],
)
def test_brows_and_smiles_are_told_from_four_millimetres(
    schema: LandmarkSchema, expression: Expression, told: tuple[bool, bool]
) -> None:
    def look(doing: Expression) -> Landmarks:
        points = render_face((3, 8), 48, Scene(HeadPose(), doing, occluders=())).points(schema)
        return Landmarks(points, schema, FaceBox.around(points))

    watch = ExpressionWatch(schema)
    at_rest = look(Expression())
    for index in range(32):
        first = watch.update(index / 10, at_rest, HeadPose())
    assert (first.brows_raised, first.smiles) == (False, False)
    state = watch.update(3.2, look(expression), HeadPose())
    assert (state.brows_raised, state.smiles) == told


def test_a_blink_is_told_once_when_it_is_over() -> None:
    states = seen(rested(), [AT_REST] * 5 + [SHUT] * 4 + [AT_REST] * 5)
    (blink,) = [state.blink for state in states if state.blink is not None]
    assert blink.length_s == pytest.approx(4 / 30, abs=0.01)
    assert blink.start_s == pytest.approx(3.2 + 4.5 / 30, abs=0.01)


def test_nothing_is_told_before_the_face_at_rest_is_known() -> None:
    states = seen(ExpressionWatch(IBUG_68), [AT_REST] * 30 + [SHUT] * 4 + [AT_REST] * 30)
    assert all(state.change is None and state.blink is None for state in states)


def test_a_face_that_is_lost_ends_no_blink_and_smiles_not() -> None:
    states = seen(rested(), [AT_REST, SHUT, SHUT, *[None] * 20, AT_REST, AT_REST])
    assert [state.blink for state in states] == [None] * len(states)
    assert not any(state.smiles or state.brows_raised for state in states)


def test_no_blink_is_told_across_a_clock_that_is_set_back() -> None:
    watch = rested()
    seen(watch, [AT_REST, SHUT, SHUT])
    assert not any(state.blink for state in seen(watch, [AT_REST, AT_REST], start_s=2.9))


def test_a_known_face_at_rest_is_not_learnt_again() -> None:
    watch = ExpressionWatch(IBUG_68, baseline=rested().baseline)
    assert seen(watch, [AT_REST])[0].change is not None


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(InputError, match="MMLAB_5 does not say how far an eye"):
        ExpressionWatch(MMLAB_5)
    with pytest.raises(InputError, match="finite"):
        ExpressionWatch(IBUG_68).update(float("nan"), None)
