"""The command line in a report makes the same configuration again."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from lmedge.pipeline.configuration.config import config_from, load_config
from lmedge.pipeline.configuration.options import DataOptions, RunConfig
from lmedge.pipeline.reporting.commands import build_command, portable, verify_command
from tests.requirements import require

require("pydantic")

DOCUMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"targets": ["onnxruntime", "openvino"], "data": {"sources": ["300w:faces/300w", "synthetic:50"]}},
    {"name": "with space", "train": {"epochs": 7, "learning_rate": 0.00125, "loss": "l2"}, "gates": {"fp32_max_px": 0.002}},
    {"init": "runs/a/bundle", "data": {"schema": "MMLAB_5", "detector": "yunet.onnx"}, "augment": {"flip": 0.0}},
)


def configuration_of(command: str) -> RunConfig:
    """What `lmedge build` reads from a command line."""
    words = iter(shlex.split(command)[2:])
    settings: list[str] = []
    overrides: dict[str, Any] = {}
    for option in words:
        value = next(words)
        if option == "--set":
            settings.append(value)
        elif option == "--target":
            overrides.setdefault("targets", []).append(value)
        elif option == "--data":
            overrides.setdefault("data", {}).setdefault("sources", []).append(value)
        elif option == "--schema":
            overrides.setdefault("data", {})["schema"] = value
        else:
            assert option == "--init"
            overrides["init"] = value
    return load_config(None, settings, overrides)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_build_command_gives_the_same_configuration(document: dict[str, Any]) -> None:
    config = config_from(document)
    assert configuration_of(build_command(config)) == config


def test_defaults_are_not_spelled_out() -> None:
    assert build_command(RunConfig()) == "lmedge build --target onnxruntime"


def test_absolute_paths_become_placeholders_and_relative_ones_stay() -> None:
    config = RunConfig(
        init="/home/me/best.pt", data=DataOptions(("300w:/data/300w", "csv:own/faces.csv"), "/x/own.toml", "/models/yunet.onnx")
    )
    shown = portable(config)
    assert shown.init == "PATH/best.pt"
    assert shown.data == DataOptions(("300w:PATH/300w", "csv:own/faces.csv"), "PATH/own.toml", "PATH/yunet.onnx")
    assert "/home" not in build_command(config)


def test_the_verify_command_looks_where_the_build_command_writes() -> None:
    config = RunConfig(name="a b", data=DataOptions(("synthetic:50",)))
    assert shlex.split(verify_command(config)) == [
        "lmedge", "verify", "runs/a b/bundle", "--run", "runs/a b", "--data", "synthetic:50",
    ]  # fmt: skip
