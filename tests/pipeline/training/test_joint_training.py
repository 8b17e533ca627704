"""One network for several point sets: other faces take turns, have no say where they have no points, and each set gets a
checkpoint that answers as the joint network does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmedge.errors import ConfigError, SchemaError
from lmedge.pipeline.models import build_network
from lmedge.pipeline.training.checkpoint import BEST, LAST, Checkpoint, load_tensors
from lmedge.pipeline.training.dataset import EpochOrder, load_joint_canvases
from lmedge.pipeline.training.joint import Frames, JointPoints
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.data.faces import points_of, sample_of, textured_image
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.drawn_runs import ARCHITECTURE, SPEC, other_faces, run, run_options
from tests.pipeline.training.test_joint import OWN

JOINT = JointPoints((MMLAB_5, IBUG_68))
# The files of the best epoch are those of the last.
ONE_EPOCH = run_options(epochs=1, ema=0.5)


# Turns


def drawn(order: EpochOrder, epoch: int) -> list[int]:
    order.epoch = epoch
    return list(order)


@given(count=st.integers(1, 9), others=st.integers(1, 9), part=st.integers(1, 12), seed=st.integers(0, 3))
def test_other_faces_take_turns(count: int, others: int, part: int, seed: int) -> None:
    """After any number of epochs, no face was seen more than once oftener than another."""
    order = EpochOrder(count, seed, others, part)
    assert len(order) == count + min(part, others)
    seen: Counter[int] = Counter(dict.fromkeys(range(count, count + others), 0))
    for epoch in range(8):
        chosen = drawn(order, epoch)
        assert len(chosen) == len(order)
        assert sorted(index for index in chosen if index < count) == list(range(count))
        seen.update(index for index in chosen if index >= count)
        assert max(seen.values()) - min(seen.values()) <= 1


def test_an_order_with_others_depends_on_seed_and_epoch_alone_and_mixes_both() -> None:
    order = EpochOrder(40, 0, 40, 20)
    first, again = drawn(order, 3), drawn(EpochOrder(40, 0, 40, 20), 3)
    assert first == again
    assert len({tuple(drawn(EpochOrder(40, seed, 40, 20), epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    places = [place for place, index in enumerate(first) if index >= 40]
    assert 20 < float(np.mean(places)) < 40


def test_others_change_nothing_of_an_order_without_them() -> None:
    assert drawn(EpochOrder(20, 0, 5, 0), 2) == drawn(EpochOrder(20, 0), 2)


# Labels


def test_a_joint_label_has_the_points_of_its_face_in_their_place() -> None:
    own, other = drawn_faces(1, 0)[0], other_faces(1)
    frames = Frames(MMLAB_5, own, JOINT.schemas)
    canvases = load_joint_canvases([*own, *other], SPEC, JOINT, frames)
    known = [np.isfinite(canvas.points_px).all(1) for canvas in canvases]
    assert known[0].tolist() == [True] * 5 + [False] * 68
    assert known[1].tolist() == [False] * 5 + [True] * 68


def test_a_canvas_shows_the_frame_of_the_first_schema() -> None:
    """Five points are cut out as the whole face would be."""
    whole = [sample_of(textured_image(n), points_of(IBUG_68), IBUG_68, f"f{n}") for n in range(3)]
    frames = Frames(IBUG_68, whole, (IBUG_68, MMLAB_5))
    small = sample_of(textured_image(9), points_of(MMLAB_5, 20, 40), MMLAB_5)
    points = JointPoints((IBUG_68, MMLAB_5))
    canvas = load_joint_canvases([small], SPEC, points, frames)[0]
    extent = np.ptp(canvas.points_px[points.place_of(MMLAB_5)], axis=0).max()
    box, own = frames.box(small), small.box()
    expected = max(own.width, own.height) / max(box.width, box.height) / SPEC.crop_scale
    assert extent / canvas.crop_side_px == pytest.approx(expected, rel=1e-3)


# Training


@pytest.fixture(scope="module")
def joint_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from unittest.mock import patch

    from lmedge.pipeline.training import train as train_module

    folder = tmp_path_factory.mktemp("joint")
    with patch.object(train_module, "export_program", lambda *_: None):
        run(folder, ONE_EPOCH, drawn_faces(16, 4), others=other_faces(10), others_part=0.5)
    return folder


def test_each_set_gets_a_checkpoint_that_answers_as_the_joint_network(joint_run: Path) -> None:
    last = load_tensors(joint_run / LAST)
    whole = build_network(replace(ARCHITECTURE, num_points=JOINT.num_outputs))
    whole.load_state_dict({k.removeprefix("module."): v for k, v in last["average"].items() if k.startswith("module.")})
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        answers = whole.eval()(images)
        for name, schema in ((BEST, MMLAB_5), ("IBUG_68.pt", IBUG_68)):
            checkpoint = Checkpoint.load(joint_run / name)
            assert checkpoint.schema == schema
            assert checkpoint.architecture.num_points == schema.num_points
            torch.testing.assert_close(checkpoint.network()(images), answers[:, JOINT.place_of(schema)])


def test_the_record_names_all_faces_and_each_network_s_own_cost(joint_run: Path) -> None:
    five, whole = (Checkpoint.load(joint_run / name).training for name in (BEST, "IBUG_68.pt"))
    assert five["faces"] == {"training": 16, "validation": 4, "others": 10}
    assert {face.photo_key for face in (*drawn_faces(16, 0)[0], *other_faces(10))} == set(five["photo_keys"])
    assert five["parameters"] < whole["parameters"]
    assert five["macs"] < whole["macs"]


@pytest.mark.usefixtures("without_program")
def test_faces_of_one_set_leave_the_rows_of_the_other_alone(tmp_path: Path) -> None:
    """Without decay and with a start that no other face moves, the last layer's rows of 68 points stay as they were."""
    options = run_options(epochs=1, weight_decay=0.0, ema=0.0)
    run(tmp_path, options, drawn_faces(16, 2), others=other_faces(4), others_part=0.0)
    bias = load_tensors(tmp_path / LAST)["network"]["head.linear.bias"].view(73, 2)
    moved = Checkpoint.load(tmp_path / "IBUG_68.pt").weights["head.linear.bias"]
    torch.testing.assert_close(bias[5:].flatten(), moved)
    frames = Frames(MMLAB_5, drawn_faces(16, 2)[0], JOINT.schemas)
    canvas = load_joint_canvases(other_faces(4), SPEC, JOINT, frames)
    middle = (canvas[0].image_bgr.shape[0] - 1) / 2
    start = np.mean([(c.points_px[5:] - middle) / c.crop_side_px + 0.5 for c in canvas], axis=0)
    np.testing.assert_allclose(bias[5:].numpy(), start, atol=1e-5)


@pytest.mark.usefixtures("without_program")
def test_a_joint_checkpoint_starts_a_run_of_its_own_points(joint_run: Path, tmp_path: Path) -> None:
    given = Checkpoint.load(joint_run / BEST)
    run(tmp_path, run_options(epochs=1), drawn_faces(8, 2), init=given)
    assert Checkpoint.load(tmp_path / BEST).training["not_from_init"] == []


def test_points_that_do_not_belong_together_stop_before_anything_is_written(tmp_path: Path) -> None:
    own = [replace(face, schema=OWN) for face in drawn_faces(2, 0)[0]]
    with pytest.raises(SchemaError, match="Faces of OWN_5 cannot be trained together with MMLAB_5"):
        run(tmp_path, ONE_EPOCH, drawn_faces(4, 2), others=own)
    assert list(tmp_path.iterdir()) == []


# Phases of a run


def test_the_first_epochs_see_small_crops_and_the_last_weakly_changed_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_program: None
) -> None:
    from lmedge.pipeline.training.dataset import TrainingFaces

    seen: dict[int, set[Any]] = {}
    get = TrainingFaces.__getitem__

    def note(faces: TrainingFaces, index: int) -> Any:
        item = get(faces, index)
        seen.setdefault(faces.epoch, set()).add((tuple(item[0].shape), faces.augment.cover > 0))
        return item

    monkeypatch.setattr(TrainingFaces, "__getitem__", note)
    options = run_options(epochs=4, small_part=0.5, small_px=24, weak_part=0.25)
    run(tmp_path, options, drawn_faces(8, 2), architecture=replace(ARCHITECTURE, head="integral"))
    small, full = (24, 24, 3), (32, 32, 3)
    assert seen == {0: {(small, True)}, 1: {(small, True)}, 2: {(full, True)}, 3: {(full, False)}}


def test_small_crops_need_a_head_that_works_at_any_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.small_part: this head works at one crop size only.*model\.head=integral"):
        run(tmp_path, run_options(small_part=0.5), drawn_faces(4, 2))
