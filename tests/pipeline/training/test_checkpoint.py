"""Checkpoints: everything comes back, nothing executable is read, and the exported program is the same anywhere."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmedge.errors import ConfigError, DataError
from lmedge.export.torch_to_onnx import load_program
from lmedge.pipeline.models import Architecture, DeployedNetwork, build_network
from lmedge.pipeline.training.checkpoint import Checkpoint, export_program, load_tensors, save_tensors, start_from
from lmedge.preprocess import BoxFit, PreprocessSpec
from lmedge.schemas import MMLAB_5
from tests.pipeline.networks import settle_norms

ARCHITECTURE = Architecture("mobilenet_v2", 0.25, "relu", 16, 64, 5)
SPEC = PreprocessSpec(input_hw=(64, 64), box_fits={"yunet": BoxFit(0.8, 0.0, 0.1)})


def checkpoint_of(architecture: Architecture = ARCHITECTURE, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    network = build_network(architecture)
    torch.nn.init.normal_(network.head.linear.weight, std=0.05)
    settle_norms(network, architecture.input_px)
    return Checkpoint(network.state_dict(), architecture, MMLAB_5, SPEC, {"epoch": 3, "photo_keys": ["ä", "b"]})


# Saving and loading


def test_everything_comes_back(tmp_path: Path) -> None:
    saved = checkpoint_of()
    saved.save(tmp_path / "best.pt")
    loaded = Checkpoint.load(tmp_path / "best.pt")
    assert replace(loaded, weights={}) == replace(saved, weights={})
    assert {name: tensor.dtype for name, tensor in loaded.weights.items()} == {n: t.dtype for n, t in saved.weights.items()}
    assert all(torch.equal(tensor, saved.weights[name]) for name, tensor in loaded.weights.items())


def test_the_network_answers_the_same_after_a_round_trip(tmp_path: Path) -> None:
    saved = checkpoint_of()
    saved.save(tmp_path / "best.pt")
    images = torch.randn(2, 3, 64, 64)
    network = Checkpoint.load(tmp_path / "best.pt").network()
    assert not network.training
    assert torch.equal(network(images), saved.network()(images))


def test_the_same_checkpoint_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second/deep"):
        checkpoint_of().save(tmp_path / name / "best.pt")
    assert (tmp_path / "first/best.pt").read_bytes() == (tmp_path / "second/deep/best.pt").read_bytes()


# Files that are no checkpoints


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no checkpoint at .*best\.pt"):
        Checkpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, -1000, -1])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "best.pt"
    checkpoint_of().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"best\.pt cannot be read as a checkpoint; it may be damaged"):
        Checkpoint.load(path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"state_dict": torch.zeros(2)}, r"foreign\.pt has checkpoint format None; this lmedge reads 1\. Train again"),
        ({"format_version": 2}, r"foreign\.pt has checkpoint format 2; this lmedge reads 1\. Train again"),
        ({"format_version": 1, "weights": {}}, "is no lmedge checkpoint: KeyError"),
        (torch.zeros(3), "is no lmedge checkpoint; it holds a Tensor"),
        ([1, 2], "is no lmedge checkpoint; it holds a list"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, document: Any, message: str) -> None:
    torch.save(document, tmp_path / "foreign.pt")
    with pytest.raises(DataError, match=message):
        Checkpoint.load(tmp_path / "foreign.pt")


def test_an_architecture_of_other_fields_is_named(tmp_path: Path) -> None:
    checkpoint_of().save(tmp_path / "best.pt")
    document = load_tensors(tmp_path / "best.pt")
    document["architecture"] = {**document["architecture"], "depth": 2}
    save_tensors(tmp_path / "best.pt", document)
    with pytest.raises(DataError, match=r"is no lmedge checkpoint: TypeError.*depth"):
        Checkpoint.load(tmp_path / "best.pt")


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap, protocol=2))], ids=["torch", "pickle"]
)
def test_nothing_in_a_file_is_executed(tmp_path: Path, write: Any) -> None:
    write({"weights": Trap(tmp_path / "executed")}, tmp_path / "trap.pt")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        Checkpoint.load(tmp_path / "trap.pt")
    assert not (tmp_path / "executed").exists()


# Starting from another checkpoint


def test_every_weight_that_fits_is_taken() -> None:
    network = build_network(ARCHITECTURE)
    given = checkpoint_of(seed=1)
    assert start_from(network, given) == []
    assert all(torch.equal(tensor, given.weights[name]) for name, tensor in network.state_dict().items())


def test_heat_maps_of_an_earlier_checkpoint_are_taken(tmp_path: Path) -> None:
    architecture = replace(ARCHITECTURE, head="integral", confidence=True)
    torch.manual_seed(1)
    network = build_network(architecture)
    settle_norms(network, architecture.input_px)
    present = Checkpoint(network.state_dict(), architecture, MMLAB_5, SPEC, {})
    weights = dict(present.weights)
    for number in ("weight", "bias"):
        weights[f"head.maps.{number}"] = torch.cat([weights.pop(f"head.maps.{kind}.{number}") for kind in range(2)])
    replace(present, weights=weights).save(tmp_path / "best.pt")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(Checkpoint.load(tmp_path / "best.pt").network()(images), present.network()(images))


def test_a_head_for_other_points_starts_anew() -> None:
    network = build_network(replace(ARCHITECTURE, num_points=68))
    own_head = network.head.linear.weight.clone()
    given = checkpoint_of(seed=1)
    assert start_from(network, given) == ["head.linear.bias", "head.linear.weight"]
    assert torch.equal(network.head.linear.weight, own_head)
    assert torch.equal(network.trunk.blocks[0][0].weight, given.weights["trunk.blocks.0.0.weight"])


def test_a_checkpoint_of_another_width_is_refused() -> None:
    given = checkpoint_of(replace(ARCHITECTURE, width=1.0))
    with pytest.raises(ConfigError, match=r"nothing of the checkpoint fits.*--set model\.width=1\.0"):
        start_from(build_network(ARCHITECTURE), given)


# The exported program


@pytest.fixture(scope="module")
def program_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "model.pt2"
    export_program(checkpoint_of(), file)
    return file


def test_the_program_is_made_in_silence_and_is_the_same_in_any_folder_and_memory_format(
    program_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = checkpoint_of()
    weights = {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in checkpoint.weights.items()}
    logging_before = logging.root.manager.disable
    export_program(replace(checkpoint, weights=weights), tmp_path / "deep/er/model.pt2")
    assert logging.root.manager.disable == logging_before
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
    assert capfd.readouterr() == ("", "")
    content = program_file.read_bytes()
    assert content == (tmp_path / "deep/er/model.pt2").read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in content


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_program_takes_any_batch_and_answers_like_the_checkpoint(program_file: Path, batch: int) -> None:
    checkpoint = checkpoint_of()
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, 64, 64, 3), np.uint8))
    with torch.no_grad():
        answer = load_program(program_file).module()(crops)
        expected = DeployedNetwork(checkpoint.network(), SPEC.mean, SPEC.std).eval()(crops)
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=0)
