"""What a run is told to do: defaults here, then a TOML file, then `--set key.subkey=value`.

An unknown key is a `ConfigError` that names the nearest known one. Sections map to the dataclasses below.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lmedge.data.augment import AugmentSpec
from lmedge.errors import ConfigError
from lmedge.runtimes.gates import GateLimits
from lmedge.toml_file import read_toml

HOST_ENGINES = ("onnxruntime", "openvino")
# Spelled here too, since the modules that define them need torch; a test holds both together.
LOSS_NAMES = ("l2", "wing")
TRUNK_NAMES = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
ACTIVATION_NAMES = ("relu", "relu6", "hardswish")
QUANTIZE_BASES = ("lmedge", "nncf", "best")
QUANTIZE_RANGES = ("min-max", "coverage", "percentile", "mse", "best")
TARGETS = (*HOST_ENGINES, "tensorrt")
DEFAULT_SOURCE = "synthetic:2000"
# Of what int8 may add to the NME. Who writes points, 0.03, for a fraction would bound nothing.
MOST_NME_LOSS = 0.02
# What difflib calls a good match.
_LEAST_CLOSENESS = 0.6
# Of the augmentation: probabilities, and factors that must not turn a picture into its negative.
_PARTS = ("flip", "gray", "contrast", "color")


@dataclass(frozen=True)
class DataOptions:
    """`sources`: "KIND:PATH" texts, joined; `schema`: a name or TOML file where the kind leaves it open; `detector`: a
    YuNet file, run on the training photos so that the bundle knows its boxes too."""

    sources: tuple[str, ...] = (DEFAULT_SOURCE,)
    schema: str = ""
    detector: str = ""


@dataclass(frozen=True)
class CropOptions:
    """`input_px`: side of the network's crop; `crop_scale`: its side over the extent of the points."""

    input_px: int = 112
    crop_scale: float = 1.25


@dataclass(frozen=True)
class ModelOptions:
    """`trunk`: a published network; `width`: its multiplier; `activation`: relu, relu6 or hardswish; `head_channels`: what the
    head keeps per position."""

    trunk: str = "mobilenet_v2"
    width: float = 0.75
    activation: str = "relu6"
    head_channels: int = 64


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs, batch_size: as usual.
        learning_rate: the highest; linear warm-up over `warmup_epochs`, then half a cosine down to zero.
        weight_decay: of AdamW, on weights of convolutions and linear layers only.
        loss: l2 or wing.
        seed: of weights, order and augmentation.
        threads: CPU threads of torch; 0 leaves torch's default.
    """

    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_epochs: float = 2.0
    loss: str = "wing"
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        images: calibration crops, from training faces.
        seed: of their choice.
        base: whose steps prepare the network: lmedge, nncf, or best, which tries both and keeps what adds least to the NME.
        ranges: how ranges are found: min-max, coverage, percentile, mse, or best.
        equalise, correct_bias: steps of lmedge's base.
        sensitivity: rank the layers by what their rounding does.
        max_nme_loss: the most that int8 may add to the NME, a fraction (0.0003 is 0.03 points), for its upper 95 % bound;
            layers are left in float until it is met.
        min_speedup: how many times as fast as fp32 int8 must be then.
    """

    images: int = 500
    seed: int = 0
    base: str = "lmedge"
    ranges: str = "best"
    equalise: bool = True
    correct_bias: bool = True
    sensitivity: bool = False
    max_nme_loss: float | None = None
    min_speedup: float | None = None


@dataclass(frozen=True)
class ParityOptions:
    """`crops`: faces on which engines are compared with PyTorch; validation faces first, then training faces."""

    crops: int = 500


@dataclass(frozen=True)
class BenchOptions:
    """`iterations`: timed calls per engine and precision; `threads`: of CPU engines."""

    iterations: int = 300
    threads: int = 1


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run makes. `name`: of the bundle; `targets`: engines to serve."""

    name: str = "faces"
    targets: tuple[str, ...] = ("onnxruntime",)
    init: str = ""
    data: DataOptions = field(default_factory=DataOptions)
    crop: CropOptions = field(default_factory=CropOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    parity: ParityOptions = field(default_factory=ParityOptions)
    bench: BenchOptions = field(default_factory=BenchOptions)
    gates: GateLimits = field(default_factory=GateLimits)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that are built and checked on this machine; ONNX Runtime where every target is built elsewhere."""
        return tuple(sorted(set(self.targets) & set(HOST_ENGINES))) or HOST_ENGINES[:1]


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
    _check_ranges(config)
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


def _check_choices(config: RunConfig) -> None:
    chosen = {
        "train.loss": (config.train.loss, LOSS_NAMES),
        "model.trunk": (config.model.trunk, TRUNK_NAMES),
        "model.activation": (config.model.activation, ACTIVATION_NAMES),
        "quantize.base": (config.quantize.base, QUANTIZE_BASES),
        "quantize.ranges": (config.quantize.ranges, QUANTIZE_RANGES),
    }
    for name, (value, known) in chosen.items():
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{name} must be one of {', '.join(known)}; got {value!r}.{hint}")


def _check_bounds(options: QuantizeOptions) -> None:
    loss, speedup = options.max_nme_loss, options.min_speedup
    if loss is not None and not 0 <= loss <= MOST_NME_LOSS:
        raise ConfigError(
            f"quantize.max_nme_loss must be between 0 and {MOST_NME_LOSS}; got {loss}. "
            "It is a fraction: 0.0003 is 0.03 points of NME, as --max-nme-loss 0.03 says it."
        )
    if speedup is not None and not (math.isfinite(speedup) and speedup > 0):
        raise ConfigError(
            f"quantize.min_speedup must be above 0; got {speedup}. 1.5 asks for int8 in two thirds of fp32's time."
        )


def _check_ranges(config: RunConfig) -> None:
    unknown = [target for target in config.targets if target not in TARGETS]
    if unknown or not config.targets:
        near = difflib.get_close_matches(unknown[0], TARGETS, n=1) if unknown else []
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"targets must be some of {', '.join(TARGETS)}; got {', '.join(config.targets) or 'none'}.{hint}")
    at_least = {
        "train.epochs": (config.train.epochs, 1),
        "train.batch_size": (config.train.batch_size, 2),
        "model.head_channels": (config.model.head_channels, 1),
        "quantize.images": (config.quantize.images, 1),
        "parity.crops": (config.parity.crops, 1),
        "bench.iterations": (config.bench.iterations, 1),
        "bench.threads": (config.bench.threads, 1),
        "train.threads": (config.train.threads, 0),
        "train.seed": (config.train.seed, 0),
    }
    for name, (value, lowest) in at_least.items():
        if value < lowest:
            raise ConfigError(f"{name} must be at least {lowest}; got {value}.")
    between = {
        "crop.input_px": (config.crop.input_px, 32, 1024),
        "crop.crop_scale": (config.crop.crop_scale, 0.5, 10),
        "model.width": (config.model.width, 0.1, 4),
    }
    for name, (number, low, high) in between.items():
        if not low <= number <= high:
            raise ConfigError(f"{name} must be between {low} and {high}; got {number}.")
    _check_choices(config)
    _check_bounds(config.quantize)
    if not (math.isfinite(config.train.learning_rate) and config.train.learning_rate > 0):
        raise ConfigError(f"train.learning_rate must be above 0; got {config.train.learning_rate}.")
    at_most = {
        f"augment.{name}": (value, 1.0 if name in _PARTS else math.inf) for name, value in asdict(config.augment).items()
    }
    at_most |= {f"train.{name}": (getattr(config.train, name), math.inf) for name in ("weight_decay", "warmup_epochs")}
    for name, (value, highest) in at_most.items():
        if not (math.isfinite(value) and 0 <= value <= highest):
            wish = "at least 0" if math.isinf(highest) else f"between 0 and {highest:g}"
            raise ConfigError(f"{name} must be {wish}; got {value}.")
    if not config.name or set(config.name) & set("/\\") or config.name.startswith("."):
        raise ConfigError(f"name must be usable as a folder name; got {config.name!r}.")
