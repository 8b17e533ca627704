"""What training minimises: the distance to the labels, the distance to what a teacher says, and the likelihood of the errors
under the network's own confidence. Every face has the same say, so that parts of a batch average to the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.training.confidence import likelihood_loss
from lmedge.pipeline.training.joint import JointPoints
from lmedge.pipeline.training.losses import get_loss

# The likelihood is a number around 1, the losses on places are a few pixels.
_LIKELIHOOD_WEIGHT = 0.5


class Objective:
    """The loss of a batch of answers (N, K, 2 or 3) against labels (N, K', 2) as `JointPoints` lays them out, NaN where
    unknown.

    Raises:
        ConfigError: no such loss.
    """

    def __init__(self, points: JointPoints, options: TrainOptions) -> None:
        self._points, self._options = points, options
        self._loss = get_loss(options.loss)

    def __call__(self, answers: Tensor, labels: Tensor, size_px: int) -> Tensor:
        points, options = self._points, self._options
        own, taught = labels[:, : points.num_outputs], labels[:, points.num_outputs :]
        mask = _known(own)
        normalizer = self._normalizer(labels) if options.normalized else None
        total = self._loss(answers[:, :, :2], own, mask, size_px, normalizer)
        if points.taught:
            first = answers[:, : points.schemas[0].num_points, :2]
            from_teacher = self._loss(first, taught, _known(taught), size_px, normalizer)
            total = (1 - options.teacher_share) * total + options.teacher_share * from_teacher
        if answers.shape[2] > 2:
            total = total + _LIKELIHOOD_WEIGHT * likelihood_loss(answers, own, mask)
        return total

    def _normalizer(self, labels: Tensor) -> Tensor:
        """What divides the error of each face, as a fraction of the crop (N,); NaN where a face has not the points for it."""
        found = torch.full((len(labels),), torch.nan, device=labels.device)
        blocks = [(schema, labels[:, self._points.place_of(schema)]) for schema in self._points.schemas]
        if self._points.taught:
            blocks.append((self._points.schemas[0], labels[:, self._points.num_outputs :]))
        for schema, block in blocks:
            one, other = (block[:, list(indices)].mean(1) for indices in schema.normalizer)
            found = torch.where(torch.isfinite(found), found, (one - other).norm(dim=1))
        return found


def _known(labels: Tensor) -> Tensor:
    return torch.isfinite(labels).all(dim=2)
