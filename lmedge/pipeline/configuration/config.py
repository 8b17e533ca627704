"""What a run is told to do: defaults (`options`), then a TOML file, then `--set key.subkey=value`.

An unknown key is a `ConfigError` that names the nearest known one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lmedge.errors import ConfigError
from lmedge.pipeline.configuration.config_checks import check_values
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.toml_file import read_toml

# What difflib calls a good match.
_LEAST_CLOSENESS = 0.6


def load_config(
    file: Path | None = None, settings: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> RunConfig:
    """The configuration of a run.

    Args:
        file: TOML, or None for the defaults.
        settings: "a.b=value" texts; the value is read as TOML, else as text.
        overrides: nested values that win over all, from command-line options.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a value of the wrong kind or out of range.
    """
    document = read_toml(file, ConfigError) if file else {}
    return config_from(merge_documents(apply_settings(document, settings), overrides or {}))


def config_from(document: Mapping[str, Any]) -> RunConfig:
    """A configuration from nested plain values.

    Raises:
        ConfigError: see `load_config`.
    """
    _check_keys(document, RunConfig, "")
    from pydantic import TypeAdapter, ValidationError  # 0.1 s, and only builds need it

    try:
        # Strict, so that "20" and true are no numbers; as JSON, since strict Python values would have to be tuples.
        config = TypeAdapter(RunConfig).validate_json(json.dumps(document, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # a limit's own message
            raise ConfigError(str(first["ctx"]["error"])) from error
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {first['msg']}; got {first['input']!r}.") from error
    check_values(config)
    return config


def apply_settings(document: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Nested settings with "a.b=value" texts on top.

    Raises:
        ConfigError: a text of another form.
    """
    changed = merge_documents({}, document)
    for setting in settings:
        _merge(changed, _parse_setting(setting))
    return changed


def merge_documents(document: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `other` on top; neither is changed."""
    merged: dict[str, Any] = {}
    _merge(merged, document)
    _merge(merged, other)
    return merged


def _parse_setting(setting: str) -> dict[str, Any]:
    import tomllib

    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key.subkey=value, e.g. --set train.epochs=20; got {setting!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _merge(document: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping):
            inner = document.setdefault(key, {})
            if isinstance(inner, dict):
                _merge(inner, value)
                continue
        document[key] = value


def _check_keys(document: Any, kind: type, prefix: str) -> None:
    if not isinstance(document, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'The configuration'} must be a table of settings; got {document!r}.")
    hints = get_type_hints(kind)
    known = [entry.name for entry in fields(kind)]
    for key, value in document.items():
        if key not in known:
            raise ConfigError(f"Unknown setting {prefix}{key}; known here: {', '.join(known)}.{_nearest(prefix, key)}")
        if is_dataclass(hints[key]):
            _check_keys(value, hints[key], f"{prefix}{key}.")


def _nearest(prefix: str, key: str) -> str:
    """A hint at the known key that is nearest to an unknown one, also when only its section is wrong or missing."""

    def closeness(name: str) -> float:
        pairs = ((prefix + key, name), (key, name.rpartition(".")[2]))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    best = max((name for name in _all_keys(RunConfig, "") if f"{name}." != prefix), key=closeness)
    return f" Did you mean {best}?" if closeness(best) >= _LEAST_CLOSENESS else ""


def _all_keys(kind: type, prefix: str) -> list[str]:
    hints = get_type_hints(kind)
    keys: list[str] = []
    for entry in fields(kind):
        keys.append(prefix + entry.name)
        if is_dataclass(hints[entry.name]):
            keys += _all_keys(hints[entry.name], f"{prefix}{entry.name}.")
    return keys
