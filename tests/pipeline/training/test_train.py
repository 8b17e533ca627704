"""Training on drawn faces: it learns, its options count, and bad input is named."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from lmedge.bundle import Artifact, network_specs
from lmedge.data.augment import AugmentSpec
from lmedge.data.samples import FaceSample
from lmedge.errors import AccuracyError, ConfigError, DataError
from lmedge.export.torch_reference import TorchReference
from lmedge.metrics import nme
from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.models import count_macs, count_parameters
from lmedge.pipeline.training.checkpoint import BEST, LAST, PROGRAM, Checkpoint, load_tensors
from lmedge.pipeline.training.dataset import TrainingFaces, load_crops
from lmedge.pipeline.training.state import EpochRecord
from lmedge.pipeline.training.validation import ValidationFaces
from lmedge.runtimes.parity import answer
from lmedge.schemas import MMLAB_5
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.drawn_runs import ARCHITECTURE, SHORT, SPEC, run, short_run

LEARNING = TrainOptions(epochs=10, batch_size=8, learning_rate=4e-3, warmup_epochs=1, loss="wing")


@dataclass(frozen=True)
class Trained:
    folder: Path
    history: list[EpochRecord]
    faces: tuple[list[FaceSample], list[FaceSample]]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Ten epochs on faces that are turned by up to 40°, without augmentation."""
    folder, faces = tmp_path_factory.mktemp("learned"), drawn_faces(80, 16)
    still = AugmentSpec(rotation_deg=0, scale=0, shift=0, flip=0, gray=0)
    return Trained(folder, run(folder, LEARNING, faces, augment=still), faces)


def mean_face_nme(faces: tuple[list[FaceSample], list[FaceSample]]) -> float:
    """The error of answering the mean training face to everything."""
    training, validation = (load_crops(side, SPEC)[1].numpy() for side in faces)
    return float(np.mean(nme(np.broadcast_to(training.mean(axis=0), validation.shape), validation, MMLAB_5)))


# Learning


def test_the_loss_falls_and_faces_are_found_better_than_by_their_mean(learned: Trained) -> None:
    assert [record.epoch for record in learned.history] == list(range(LEARNING.epochs))
    assert learned.history[-1].loss < 0.8 * learned.history[0].loss
    assert min(record.validation_nme for record in learned.history) < 0.8 * mean_face_nme(learned.faces)


def test_the_learning_rate_warms_up_and_falls_to_zero(learned: Trained) -> None:
    rates = [record.learning_rate for record in learned.history]
    assert rates[0] == pytest.approx(LEARNING.learning_rate)
    assert rates == sorted(rates, reverse=True)
    half_way = 0.5 * (1 + math.cos(math.pi * 5 / 9)) * LEARNING.learning_rate
    assert rates[5] == pytest.approx(half_way)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_best_epoch_is_kept(learned: Trained) -> None:
    best = Checkpoint.load(learned.folder / BEST)
    record = min(learned.history, key=lambda record: record.validation_nme)
    assert (best.training["epoch"], best.training["validation_nme"]) == (record.epoch, record.validation_nme)
    assert (best.architecture, best.schema, best.preprocess) == (ARCHITECTURE, MMLAB_5, SPEC)


def test_the_noted_error_is_that_of_the_device_pipeline(learned: Trained) -> None:
    """The exported program, run as a runtime on the device's crops, errs as much as training said."""
    inputs, outputs = network_specs(SPEC, MMLAB_5)
    program = Artifact.of_file(
        learned.folder / PROGRAM, learned.folder, format="torch", precision="fp32", inputs=inputs, outputs=outputs
    )
    crops, true_fractions = load_crops(learned.faces[1], SPEC)
    with TorchReference.open(program, batch=None) as runtime:
        error = float(np.mean(nme(answer(runtime, crops.numpy()), true_fractions.numpy(), MMLAB_5)))
    assert error == pytest.approx(min(record.validation_nme for record in learned.history), abs=1e-6)


def test_the_checkpoint_says_what_it_was_trained_on(learned: Trained) -> None:
    training = Checkpoint.load(learned.folder / BEST).training
    network = Checkpoint.load(learned.folder / BEST).network()
    assert training["photo_keys"] == sorted(face.photo_key for face in learned.faces[0])
    assert training["faces"] == {"training": 80, "validation": 16}
    assert training["parameters"] == count_parameters(network)
    assert training["macs"] == count_macs(network, 32)
    assert TrainOptions(**training["options"]) == LEARNING


def test_a_finished_run_is_not_trained_again(learned: Trained) -> None:
    before = {path.name: path.read_bytes() for path in learned.folder.iterdir()}
    steps: list[str] = []
    history = run(learned.folder, LEARNING, learned.faces, progress=lambda done, total, text: steps.append(text))
    assert history == learned.history
    assert set(steps) == {"reading training faces"}
    assert {path.name: path.read_bytes() for path in learned.folder.iterdir()} == before


# Another start


@pytest.mark.usefixtures("without_program")
def test_init_starts_from_the_given_weights(learned: Trained, tmp_path: Path) -> None:
    once = replace(LEARNING, epochs=1, learning_rate=1e-9)
    history = run(tmp_path, once, learned.faces, init=Checkpoint.load(learned.folder / BEST))
    # One epoch moves the statistics of the norms, not the weights.
    assert history[0].validation_nme < 0.85 * mean_face_nme(learned.faces)


@pytest.mark.parametrize("role", ["init", "teacher"])
def test_a_checkpoint_that_saw_validation_photos_is_refused(learned: Trained, tmp_path: Path, role: str) -> None:
    given = Checkpoint.load(learned.folder / BEST)
    seen = replace(given, training={**given.training, "photo_keys": [face.photo_key for face in learned.faces[1]]})
    with pytest.raises(DataError, match="trained on 16 of its 16 validation photos"):
        run(tmp_path, SHORT, learned.faces, **{role: seen})
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_program")
def test_init_for_other_points_keeps_the_trunk(learned: Trained, tmp_path: Path) -> None:
    given = Checkpoint.load(learned.folder / BEST)
    head = {name: tensor[:8] if name.startswith("head.linear") else tensor for name, tensor in given.weights.items()}
    other = replace(given, weights=head, architecture=replace(ARCHITECTURE, num_points=4))
    run(tmp_path, replace(SHORT, epochs=1, learning_rate=1e-9), drawn_faces(8, 2), init=other)
    weights = Checkpoint.load(tmp_path / BEST).weights
    kernel = "trunk.blocks.0.0.weight"
    torch.testing.assert_close(weights[kernel], given.weights[kernel])
    assert weights["head.linear.weight"].shape[0] == 10


@pytest.mark.usefixtures("without_program")
def test_a_checkpoint_keeps_what_its_init_was_trained_on(tmp_path: Path) -> None:
    own, inherited = ({"kind": kind, "what": kind, "terms": kind} for kind in ("300w", "wflw"))
    once, faces = replace(SHORT, epochs=1), drawn_faces(16, 2)
    run(tmp_path / "first", once, (faces[0][:8], faces[1]), sources=[inherited])
    given = Checkpoint.load(tmp_path / "first" / BEST)
    run(tmp_path / "second", once, (faces[0][8:], faces[1]), sources=[own], init=given)
    training = Checkpoint.load(tmp_path / "second" / BEST).training
    assert training["sources"] == [own, inherited]
    assert training["photo_keys"] == sorted(face.photo_key for face in faces[0])
    assert training["not_from_init"] == []


# Options


@pytest.mark.usefixtures("without_program")
@pytest.mark.parametrize("change", [{"seed": 1}, {"weight_decay": 0.5}, {"loss": "l2"}, {"batch_size": 9}])
def test_each_option_changes_the_weights(undisturbed: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    run(tmp_path, replace(SHORT, **change), drawn_faces(18, 4))
    name = "trunk.blocks.0.0.weight"
    ours, theirs = (load_tensors(folder / LAST)["network"][name] for folder in (tmp_path, undisturbed))
    assert not torch.equal(ours, theirs)


# Batches


@pytest.mark.usefixtures("without_program")
def test_every_epoch_takes_every_face_once_in_another_order(tmp_path: Path) -> None:
    taken: dict[int, list[int]] = {}
    get = TrainingFaces.__getitem__

    def note(faces: TrainingFaces, index: int) -> Any:
        taken.setdefault(faces.epoch, []).append(index)
        return get(faces, index)

    with patch.object(TrainingFaces, "__getitem__", note):
        run(tmp_path, SHORT, drawn_faces(16, 2))
    assert [sorted(order) for order in taken.values()] == [list(range(16))] * SHORT.epochs
    assert len({tuple(order) for order in taken.values()}) == SHORT.epochs


@pytest.mark.usefixtures("without_program")
@pytest.mark.parametrize(("faces", "batch_size", "batches"), [(17, 8, 2), (16, 8, 2), (5, 8, 1), (9, 8, 1)])
def test_no_batch_is_smaller_than_the_others(tmp_path: Path, faces: int, batch_size: int, batches: int) -> None:
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int, text: str) -> None:
        if text.startswith("epoch"):
            steps.append((done, total))

    run(tmp_path, replace(SHORT, epochs=1, batch_size=batch_size), drawn_faces(faces, 2), progress=progress)
    assert steps == [(step, batches) for step in range(1, batches + 1)]


@pytest.mark.usefixtures("without_program")
def test_faces_with_unknown_points_train(tmp_path: Path) -> None:
    training, validation = drawn_faces(8, 2)
    holed = []
    for index, face in enumerate(training):
        points = face.points_px.copy()
        points[index % 5] = np.nan
        holed.append(replace(face, points_px=points))
    history = run(tmp_path, replace(SHORT, epochs=1), (holed, validation))
    assert math.isfinite(history[0].loss)
    assert all(torch.isfinite(tensor).all() for tensor in load_tensors(tmp_path / LAST)["network"].values())


@pytest.mark.usefixtures("without_program")
def test_a_point_that_no_face_has_starts_in_the_middle(tmp_path: Path) -> None:
    training, validation = drawn_faces(8, 2)
    noseless = [replace(face, points_px=np.where(np.arange(5)[:, None] == 2, np.nan, face.points_px)) for face in training]
    run(tmp_path, replace(SHORT, epochs=1), (noseless, validation))
    bias = load_tensors(tmp_path / LAST)["network"]["head.linear.bias"].reshape(5, 2)
    torch.testing.assert_close(bias[2], torch.full((2,), 0.5))


# Errors


@pytest.mark.parametrize(("training", "validation"), [(0, 2), (1, 2), (4, 0)])
def test_too_few_faces_are_counted(tmp_path: Path, training: int, validation: int) -> None:
    with pytest.raises(DataError, match=f"got {training} for training and {validation} for validation.*give more photos"):
        run(tmp_path, SHORT, drawn_faces(training, validation))


def test_validation_faces_without_a_normaliser_are_named(tmp_path: Path) -> None:
    training, validation = drawn_faces(8, 2)
    eyeless = [replace(face, points_px=np.vstack([np.full((2, 2), np.nan), face.points_px[2:]])) for face in validation]
    with pytest.raises(DataError, match="None of the 2 validation faces has the points that its error is divided by"):
        run(tmp_path, SHORT, (training, eyeless))


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_loss_that_is_no_number_stops_training(tmp_path: Path) -> None:
    with pytest.raises(AccuracyError, match=r"The loss became (nan|inf) in epoch \d\. .* --set train.learning_rate=2.5e\+29"):
        run(tmp_path, replace(SHORT, learning_rate=1e30), drawn_faces(18, 4))


def test_an_error_that_is_no_number_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ValidationFaces, "nme", lambda *_: math.nan)
    with pytest.raises(AccuracyError, match="The validation NME became nan in epoch 1"):
        short_run(tmp_path)
    assert not (tmp_path / BEST).exists()


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ({}, {"loss": "huber"}, "No loss is called 'huber'"),
        ({"architecture": replace(ARCHITECTURE, trunk="vgg")}, {}, "No network is called 'vgg'"),
    ],
)
def test_unknown_names_stop_before_anything_is_written(
    tmp_path: Path, more: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, replace(SHORT, **options), drawn_faces(4, 2), **more)
    assert list(tmp_path.iterdir()) == []
