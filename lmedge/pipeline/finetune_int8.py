"""Quantisation-aware fine-tuning: trains the numbers of an int8 graph until it answers like the float one.

The graph itself is trained (`GraphModule`), so quantisers stay where they are and what is legal stays legal. The float network
is the teacher: on random views of training faces the int8 one learns to answer the same (distillation, Hinton et al., 2015),
which needs no labels and cannot drift to another network. Batch norms are folded already. Weights move by fractions of an int8
step, scales of activations by percents (LSQ, Esser et al., ICLR 2020).

The result is measured as it will run, written back and on ONNX Runtime, and is thrown away if it is not closer to the teacher.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from lmedge.data.augment import AugmentSpec, Canvas
from lmedge.errors import AccuracyError, CalibrationError, ConfigError
from lmedge.export.graph.compare import run_onnx
from lmedge.export.graph.legalize_qdq import QUANTIZE
from lmedge.export.graph.lint_qdq import lint_qdq
from lmedge.metrics import point_errors_px
from lmedge.pipeline.dataset import EpochOrder, Progress, TrainingFaces
from lmedge.pipeline.graph_module import GraphModule
from lmedge.pipeline.losses import wing_loss
from lmedge.pipeline.memory import keep_freed_memory
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

# The part of all steps in which the learning rate rises.
_WARMUP = 0.05
