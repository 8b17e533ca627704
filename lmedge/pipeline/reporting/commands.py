"""The command lines that make a run again and check its bundle, without paths of the machine that made it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import PurePath
from typing import Any

from lmedge.pipeline.configuration.options import RunConfig

# Stands for a folder that only the reader knows.
PLACE = "PATH"
# These have an option of their own; `name` also decides the folder.
_OWN_OPTION = ("targets", "init", "data.sources", "data.schema")


def portable(config: RunConfig) -> RunConfig:
    """The configuration with every absolute path shortened to `PATH/<last part>`; relative ones stay."""
    sources = tuple(f"{kind}:{_shorten(path)}" for kind, _, path in (text.partition(":") for text in config.data.sources))
    data = replace(config.data, sources=sources, schema=_shorten(config.data.schema), detector=_shorten(config.data.detector))
    training = replace(config.train, teacher=_shorten(config.train.teacher))
    return replace(config, init=_shorten(config.init), data=data, train=training)


def build_command(config: RunConfig) -> str:
    """The `lmedge build` line of a configuration: what differs from the defaults, with portable paths."""
    shown, default = portable(config), RunConfig()
    words = ["lmedge", "build"]
    if shown.data.sources != default.data.sources:
        words += [word for source in shown.data.sources for word in ("--data", source)]
    if shown.data.schema:
        words += ["--schema", shown.data.schema]
    words += [word for target in shown.targets for word in ("--target", target)]
    if shown.init:
        words += ["--init", shown.init]
    for name, value in _differences(shown, default, ""):
        if name not in _OWN_OPTION:
            words += ["--set", f"{name}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join(words)


def verify_command(config: RunConfig) -> str:
    """The `lmedge verify` line for the bundle in the folder that `build_command` writes."""
    run = f"runs/{config.name}"
    words = ["lmedge", "verify", f"{run}/bundle", "--run", run]
    return shlex.join([*words, *(word for source in portable(config).data.sources for word in ("--data", source))])


def _shorten(path: str) -> str:
    pure = PurePath(path)
    return f"{PLACE}/{pure.name}" if pure.is_absolute() else path


def _differences(value: Any, default: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in fields(value):
        name, mine, usual = f"{prefix}{entry.name}", getattr(value, entry.name), getattr(default, entry.name)
        if is_dataclass(mine) and not isinstance(mine, type):
            yield from _differences(mine, usual, f"{name}.")
        elif mine != usual:
            yield name, mine
