"""Trained weights on disk, and the exported program that is all later stages read."""

from __future__ import annotations

import io
import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmedge.bundle import write_atomically
from lmedge.errors import ConfigError, DataError
from lmedge.pipeline.models import Architecture, DeployedNetwork, LandmarkNetwork, build_network
from lmedge.pipeline.models.integral import with_split_maps
from lmedge.pipeline.training.cut_channels import cut_channels
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

BEST, LAST, PROGRAM = "best.pt", "last.pt", "model.pt2"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and everything needed to use them.

    Attributes:
        weights: name → tensor of a `LandmarkNetwork`.
        architecture, schema, preprocess: what the network is, and what it answers to which crops.
        training: plain data about the training (epoch, validation NME, options, photo keys seen).
    """

    weights: Mapping[str, Tensor]
    architecture: Architecture
    schema: LandmarkSchema
    preprocess: PreprocessSpec
    training: Mapping[str, Any]

    def network(self) -> LandmarkNetwork:
        network = build_network(self.architecture)
        network.load_state_dict(dict(self.weights))
        return network.eval()

    def save(self, path: Path) -> None:
        save_tensors(
            path,
            {
                "format_version": _FORMAT_VERSION,
                "weights": {name: tensor.detach().cpu().contiguous() for name, tensor in self.weights.items()},
                "architecture": self.architecture.to_json(),
                "schema": self.schema.to_json(),
                "preprocess": self.preprocess.to_json(),
                "training": dict(self.training),
            },
        )

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads a checkpoint; only tensors and plain data are unpickled.

        Raises:
            DataError: the file is missing, damaged, or no lmedge checkpoint.
        """
        document = load_tensors(path)
        version = document.get("format_version")
        if version != _FORMAT_VERSION:
            raise DataError(f"{path} has checkpoint format {version}; this lmedge reads {_FORMAT_VERSION}. Train again.")
        try:
            return cls(
                weights=with_split_maps(document["weights"], int(document["architecture"]["num_points"])),
                architecture=Architecture(**document["architecture"]),
                schema=LandmarkSchema.from_json(document["schema"]),
                preprocess=PreprocessSpec.from_json(document["preprocess"]),
                training=document["training"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no lmedge checkpoint: {error!r}. Expected a {BEST} that `lmedge train` wrote."
            ) from error


def save_tensors(path: Path, document: Mapping[str, Any]) -> None:
    """torch.save, atomically; the same content gives the same bytes."""
    buffer = io.BytesIO()
    torch.save(dict(document), buffer)
    write_atomically(path, buffer.getvalue())


def load_tensors(path: Path) -> dict[str, Any]:
    """torch.load of tensors and plain data, nothing executable.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"There is no checkpoint at {path}.") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} cannot be read as a checkpoint; it may be damaged: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} is no lmedge checkpoint; it holds a {type(document).__name__}.")
    return document


def start_from(network: LandmarkNetwork, checkpoint: Checkpoint) -> list[str]:
    """Copies every weight whose name and shape fit, and of blocks with more channels the channels that count most
    (`cut_channels`); returns the names that keep their own start values.

    Raises:
        ConfigError: no kernel of the trunk fits, so the start would be from nothing.
    """
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in checkpoint.weights.items() if name in own and own[name].shape == tensor.shape}
    fitting |= cut_channels(network, checkpoint.weights)
    if not any(name.startswith("trunk.") and tensor.ndim > 1 for name, tensor in fitting.items()):
        raise ConfigError(
            f"--init: nothing of the checkpoint fits. It is a {checkpoint.architecture.trunk} of width "
            f"{checkpoint.architecture.width}; give the run the same: --set model.width={checkpoint.architecture.width}"
        )
    network.load_state_dict({**own, **fitting})
    return sorted(set(own) - set(fitting))


def export_program(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the deployed network (preprocessing inside, dynamic batch) as a `torch.export` program.

    Stack traces and module sources are removed, so that the same weights give the same bytes in any folder.
    """
    deployed = DeployedNetwork(checkpoint.network(), checkpoint.preprocess.mean, checkpoint.preprocess.std).eval()
    # Contiguous weights: a channels-last network would bake its memory format into the graph.
    deployed.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # missing in torch's stubs
    size = checkpoint.architecture.input_px
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # a batch of 1 would be specialised away
    with quiet():
        program = torch.export.export(
            deployed, (example,), dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=4096)}}
        )
        for node in program.graph.nodes:
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
                node.meta.pop(key, None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    write_atomically(path, buffer.getvalue())


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the chatter of torch's exporters; errors still raise."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
