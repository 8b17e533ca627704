"""What a network in training says of validation faces: its error, and how far its confidence can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from lmedge.data.samples import FaceSample
from lmedge.metrics import nme, point_errors_px
from lmedge.pipeline.models import TrainedNetwork
from lmedge.pipeline.training import confidence
from lmedge.pipeline.training.checkpoint import Checkpoint
from lmedge.pipeline.training.dataset import load_crops
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

_BATCH = 64


@dataclass(frozen=True, eq=False)
class ValidationFaces:
    """The device's own crops of validation faces, uint8 (N, H, W, 3), and their labels as fractions (N, K, 2)."""

    crops: Tensor
    fractions: Tensor
    schema: LandmarkSchema
    spec: PreprocessSpec

    @classmethod
    def load(cls, samples: Sequence[FaceSample], spec: PreprocessSpec) -> ValidationFaces:
        """
        Raises:
            DataError: an image cannot be read, or a label lies far outside it.
        """
        return cls(*load_crops(samples, spec), samples[0].schema, spec)

    def nme(self, network: nn.Module) -> float:
        """Mean NME over faces that have a normaliser; crops are square, so fractions give the same ratio as pixels."""
        answers = self.answers(network)[:, :, :2]
        return float(np.nanmean(nme(answers.numpy(), self.fractions.numpy(), self.schema)))

    @torch.no_grad()
    def answers(self, network: nn.Module) -> Tensor:
        """What a `LandmarkNetwork` answers for the points of this schema, (N, K, 2) or (N, K, 3). Its mode is left alone."""
        trained = TrainedNetwork(network, self.spec.mean, self.spec.std)  # type: ignore[arg-type]
        was_training = network.training
        trained.eval()
        device = next(network.parameters()).device
        parts = [trained(batch.to(device)).cpu() for batch in torch.split(self.crops, _BATCH)]
        network.train(was_training)
        # In joint training the points of the exported schema come first.
        return torch.cat(parts)[:, : self.schema.num_points]


def with_calibrated_confidence(checkpoint: Checkpoint, faces: ValidationFaces) -> Checkpoint:
    """The checkpoint with its confidence rescaled on validation faces, and in its facts how good it is on them: each half
    of the faces judged by what the other half said."""
    network = checkpoint.network()
    answers = faces.answers(network).double().numpy()
    true = faces.fractions.double().numpy()
    logits, distances = answers[:, :, 2], np.linalg.norm(answers[:, :, :2] - true, axis=2)
    errors = point_errors_px(answers[:, :, :2], true) / faces.schema.normalizer_px(true)[:, None]
    known = np.isfinite(distances)
    factor, offset = confidence.calibrate(logits[known], distances[known])
    report = confidence.judge(confidence.cross_calibrated(logits, distances), distances, errors, factor, offset)
    network.head.rescale_confidence(factor, offset)
    facts = {**checkpoint.training, "confidence": report.to_json()}
    return replace(checkpoint, weights=network.state_dict(), training=facts)
