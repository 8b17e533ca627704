"""Labels from a teacher: what it says of a face, averaged over turned and mirrored views, in the last places of a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmedge.data.augment import Canvas
from lmedge.errors import ConfigError
from lmedge.pipeline.models import LandmarkNetwork
from lmedge.pipeline.training import train as train_module
from lmedge.pipeline.training.checkpoint import BEST, Checkpoint
from lmedge.pipeline.training.dataset import load_joint_canvases
from lmedge.pipeline.training.joint import Frames, JointPoints
from lmedge.pipeline.training.teacher import teach
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema
from tests.pipeline.drawn_faces import COLORS, drawn_faces
from tests.pipeline.drawn_runs import ARCHITECTURE, SPEC, other_faces, run, run_options, untrained

# The spots are at least 12 px from each other in the picture; the finder errs by a fraction of a pixel.
FOUND_PX = 0.6


class SpotFinder(nn.Module):
    """Finds the five spots of a drawn face by their colours; of a pair, the left one in the picture is the subject's right."""

    def __init__(self, size_px: int, mean: float, std: float) -> None:
        super().__init__()
        self.size_px, self.mean, self.std = size_px, mean, std
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images * self.std + self.mean).permute(0, 2, 3, 1).double()
        return torch.stack([self.points(picture) for picture in pixels]).float()

    def points(self, picture: Tensor) -> Tensor:
        eyes, nose, mouth = (self.place(picture, color) for color in (COLORS[0], COLORS[2], COLORS[3]))
        found = [*self.pair(eyes), self.middle(nose), *self.pair(mouth)]
        return (torch.stack(found) + 0.5) / self.size_px

    def place(self, picture: Tensor, color: tuple[int, int, int]) -> Tensor:
        """How much each pixel has of a colour (H, W)."""
        return (1 - (picture - torch.tensor(color, dtype=torch.float64)).norm(dim=2) / 80).clamp(min=0)

    def middle(self, weight: Tensor) -> Tensor:
        y, x = torch.meshgrid(torch.arange(self.size_px), torch.arange(self.size_px), indexing="ij")
        return torch.stack([(weight * x).sum(), (weight * y).sum()]) / weight.sum()

    def pair(self, weight: Tensor) -> list[Tensor]:
        x = torch.arange(self.size_px)[None, :]
        middle = self.middle(weight)[0]
        return [self.middle(weight * (x < middle)), self.middle(weight * (x >= middle))]


class SpotTeacher(Checkpoint):
    """A checkpoint whose network finds the spots, whatever its weights."""

    def network(self) -> LandmarkNetwork:
        size, mean, std = self.preprocess.input_hw[0], self.preprocess.mean, self.preprocess.std
        return SpotFinder(size, mean, std)  # type: ignore[return-value]


def spot_teacher(spec: PreprocessSpec | None = None, schema: LandmarkSchema = MMLAB_5) -> Checkpoint:
    return SpotTeacher({}, ARCHITECTURE, schema, spec or PreprocessSpec(input_hw=(96, 96), crop_scale=1.6), {})


def upright_faces(count: int) -> list[Canvas]:
    """Canvases of drawn faces that are turned by less than 15°, so that of a pair the left one stays left in every view."""
    faces = []
    for face in drawn_faces(200, 0)[0]:
        eyes = face.points_px[1] - face.points_px[0]
        if abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 15:
            faces.append(face)
    frames = Frames(MMLAB_5, faces, (MMLAB_5,))
    return load_joint_canvases(faces[:count], replace(SPEC, input_hw=(96, 96)), TAUGHT, frames)


TAUGHT = JointPoints((MMLAB_5,), taught=True)


def check_labels_of(teacher: Checkpoint, points: JointPoints) -> None:
    canvases = upright_faces(20)
    taught = teach(canvases, teacher, points, replace(SPEC, input_hw=(96, 96)))
    for before, after in zip(canvases, taught, strict=True):
        np.testing.assert_array_equal(after.points_px[:5], before.points_px[:5])
        np.testing.assert_allclose(after.points_px[5:], before.points_px[:5], atol=FOUND_PX)
        assert after.image_bgr is before.image_bgr


@pytest.mark.parametrize("crop_scale", [1.6, 2.0])
@pytest.mark.parametrize("size_px", [64, 96])
def test_a_teacher_s_labels_are_where_it_sees_the_points(crop_scale: float, size_px: int) -> None:
    """Also where it was trained on crops of another size and scale than the run has."""
    check_labels_of(spot_teacher(PreprocessSpec(input_hw=(size_px, size_px), crop_scale=crop_scale)), TAUGHT)


def test_the_check_catches_a_mirror_without_pair_swap() -> None:
    unswapped = replace(MMLAB_5, flip_indices=(0, 1, 2, 3, 4))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_labels_of(spot_teacher(schema=unswapped), JointPoints((unswapped,), taught=True))


def test_many_faces_are_asked_as_one_by_one_and_progress_is_told() -> None:
    canvases, calls = upright_faces(18), []
    together = teach(canvases, untrained(), TAUGHT, SPEC, lambda *call: calls.append(call))
    alone = [teach([canvas], untrained(), TAUGHT, SPEC)[0] for canvas in canvases]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.points_px, other.points_px, atol=1e-3)
    assert calls[-1] == (18, 18, "asking the teacher")


def test_faces_of_other_points_are_labelled_too() -> None:
    points = JointPoints((MMLAB_5, IBUG_68), taught=True)
    canvases = load_joint_canvases(other_faces(2), SPEC, points, Frames(MMLAB_5, drawn_faces(2, 0)[0], points.schemas))
    for canvas in teach(canvases, untrained(), points, SPEC):
        known = np.isfinite(canvas.points_px).all(1)
        assert known.tolist() == [False] * 5 + [True] * 68 + [True] * 5


def test_a_confident_teacher_teaches_places_alone() -> None:
    teacher = untrained(replace(ARCHITECTURE, confidence=True))
    taught = teach(upright_faces(2), teacher, TAUGHT, SPEC)
    assert all(np.isfinite(canvas.points_px).all() for canvas in taught)


def test_a_teacher_of_other_points_is_refused_before_a_photo_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(train_module, "load_joint_canvases")
    other = untrained(replace(ARCHITECTURE, num_points=68), IBUG_68)
    with pytest.raises(ConfigError, match=r"train\.teacher answers IBUG_68, but this run exports MMLAB_5"):
        run(tmp_path, run_options(), drawn_faces(4, 2), teacher=other)
    assert list(tmp_path.iterdir()) == []


# In a run


@pytest.mark.usefixtures("without_program")
def test_a_pupil_inherits_where_its_teacher_s_faces_were_from(tmp_path: Path) -> None:
    own, inherited = ({"kind": kind, "what": kind, "terms": kind} for kind in ("300w", "wflw"))
    teacher = untrained(photo_keys=["seen"], sources=[inherited])
    run(tmp_path, run_options(epochs=1), drawn_faces(8, 2), sources=[own], teacher=teacher)
    training = Checkpoint.load(tmp_path / BEST).training
    assert training["sources"] == [own, inherited]
    assert "seen" in training["photo_keys"]
    assert len(training["photo_keys"]) == 9


@pytest.mark.usefixtures("without_program")
def test_a_share_of_nothing_is_a_run_without_a_teacher(tmp_path: Path) -> None:
    faces, options = drawn_faces(16, 2), run_options(epochs=1, teacher_share=0.0)
    run(tmp_path / "without", options, faces)
    run(tmp_path / "nothing", options, faces, teacher=untrained())
    run(tmp_path / "all", replace(options, teacher_share=1.0), faces, teacher=untrained())
    found = {
        name: Checkpoint.load(tmp_path / name / BEST).weights["trunk.blocks.0.0.weight"]
        for name in ("without", "nothing", "all")
    }
    torch.testing.assert_close(found["nothing"], found["without"])
    assert not torch.allclose(found["all"], found["without"])
