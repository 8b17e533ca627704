"""What a trained network says of faces, as further labels for another one (distillation).

Radosavovic et al., "Data Distillation: Towards Omni-Supervised Learning", CVPR 2018: the teacher sees each face several times,
turned, scaled and mirrored, and the mean of its answers is steadier than any of them. It is asked once per face, before
training, so a large teacher costs minutes and not a second forward pass in every step. Faces of other point sets get labels
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from lmedge.data.augment import Canvas
from lmedge.errors import ConfigError
from lmedge.pipeline.models import DeployedNetwork
from lmedge.pipeline.training.checkpoint import Checkpoint
from lmedge.pipeline.training.joint import JointPoints
from lmedge.preprocess import PreprocessSpec, square_transform, warp
from lmedge.progress import Progress

# Zoom and turn of each view; every one is also shown mirrored.
_VIEWS = ((1.0, 0.0), (1.08, 8.0), (0.94, -8.0))
_FACES_AT_ONCE = 16


def check_teacher(teacher: Checkpoint, points: JointPoints) -> None:
    """
    Raises:
        ConfigError: the teacher answers other points than the run exports.
    """
    if teacher.schema != points.schemas[0]:
        raise ConfigError(
            f"train.teacher answers {teacher.schema.name}, but this run exports {points.schemas[0].name}. Give a teacher "
            "of these points, or put the source with its points first."
        )


def teach(
    canvases: Sequence[Canvas],
    teacher: Checkpoint,
    points: JointPoints,
    spec: PreprocessSpec,
    progress: Progress | None = None,
) -> list[Canvas]:
    """The canvases with the teacher's answers in the last places of their labels."""
    with torch.random.fork_rng(devices=[]):  # a network draws weights before it gets its own: the pupil's stay the same
        network = DeployedNetwork(teacher.network(), teacher.preprocess.mean, teacher.preprocess.std).eval()
    taught: list[Canvas] = []
    for start in range(0, len(canvases), _FACES_AT_ONCE):
        batch = canvases[start : start + _FACES_AT_ONCE]
        answers_px = _mean_answers(network, teacher, batch, spec)
        for canvas, answer_px in zip(batch, answers_px, strict=True):
            labels = canvas.points_px.copy()
            labels[points.num_outputs :] = answer_px
            taught.append(replace(canvas, points_px=labels))
        if progress:
            progress(len(taught), len(canvases), "asking the teacher")
    return taught


@torch.no_grad()
def _mean_answers(
    network: DeployedNetwork, teacher: Checkpoint, canvases: Sequence[Canvas], spec: PreprocessSpec
) -> npt.NDArray[np.float64]:
    """(N, K, 2) in pixels of the canvases."""
    size = teacher.preprocess.input_hw[0]
    found = []
    for zoom, turn in _VIEWS:
        for mirror in (False, True):
            transforms = []
            for canvas in canvases:
                middle = (canvas.image_bgr.shape[0] - 1) / 2
                side = canvas.crop_side_px * teacher.preprocess.crop_scale / spec.crop_scale * zoom
                transforms.append(square_transform((middle, middle), side, size, rotation_deg=turn, mirror=mirror))
            crops = np.stack(
                [warp(c.image_bgr, t, teacher.preprocess.border_value) for c, t in zip(canvases, transforms, strict=True)]
            )
            answers = network(torch.from_numpy(crops))
            fractions = (answers[0] if isinstance(answers, tuple) else answers).numpy()
            if mirror:
                fractions = fractions[:, list(teacher.schema.flip_indices)]
            found.append([t.from_fractions(points) for t, points in zip(transforms, fractions, strict=True)])
    return np.asarray(np.mean(found, axis=0))
