"""Whether the values of a configuration make sense together; whether they are of the right kind, `config` has seen."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict

from lmedge.errors import ConfigError
from lmedge.pipeline.configuration.options import HOST_ENGINES, QuantizeOptions, RunConfig

# Spelled here too, since the modules that define them need torch or onnx; a test holds both together.
LOSS_NAMES = ("l2", "l1", "smooth_l1", "wing", "soft_wing")
TRUNK_NAMES = (
    *("plain_cnn", "resnet18", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    "mobilenet_v4_conv_small",
    "mobilenet_v4_trimmed",
    "mobilenet_v4_trimmed_more",
)
HEAD_NAMES = ("pooled", "flatten", "multiscale", "integral")
ACTIVATION_NAMES = ("relu", "relu6", "hardswish")
QUANTIZE_BASES = ("lmedge", "nncf", "best")
QUANTIZE_RANGES = ("min-max", "coverage", "percentile", "mse", "best")
TARGETS = (*HOST_ENGINES, "tensorrt")
# Of what int8 may add to the NME. Who writes points, 0.03, for a fraction would bound nothing.
MOST_NME_LOSS = 0.02
# Of the augmentation: probabilities, and factors that must not turn a picture into its negative.
_PARTS = ("flip", "gray", "contrast", "color", "near_infrared", "cover", "blur", "noise", "jpeg")


def _check_choices(config: RunConfig) -> None:
    chosen = {
        "train.loss": (config.train.loss, LOSS_NAMES),
        "model.trunk": (config.model.trunk, TRUNK_NAMES),
        "model.activation": (config.model.activation, ACTIVATION_NAMES),
        "model.head": (config.model.head, HEAD_NAMES),
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


def check_values(config: RunConfig) -> None:
    """Refuses a value out of range or a name that nothing has.

    Raises:
        ConfigError: naming the setting, what it may be, and what came.
    """
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
        "quantize.finetune_epochs": (config.quantize.finetune_epochs, 0),
        "parity.crops": (config.parity.crops, 1),
        "bench.iterations": (config.bench.iterations, 1),
        "bench.threads": (config.bench.threads, 1),
        "train.threads": (config.train.threads, 0),
        "train.seed": (config.train.seed, 0),
        "train.workers": (config.train.workers, 0),
    }
    for name, (value, lowest) in at_least.items():
        if value < lowest:
            raise ConfigError(f"{name} must be at least {lowest}; got {value}.")
    between = {
        "crop.input_px": (config.crop.input_px, 32, 1024),
        "crop.crop_scale": (config.crop.crop_scale, 0.5, 10),
        "model.width": (config.model.width, 0.1, 4),
        "train.small_px": (config.train.small_px, 32, 1024),
        "train.small_part": (config.train.small_part, 0, 1),
        "train.weak_part": (config.train.weak_part, 0, 1),
        "train.teacher_share": (config.train.teacher_share, 0, 1),
        "train.ema": (config.train.ema, 0, 0.99999),
    }
    for name, (number, low, high) in between.items():
        if not low <= number <= high:
            raise ConfigError(f"{name} must be between {low} and {high}; got {number}.")
    if config.train.small_part and config.train.small_px > config.crop.input_px:
        raise ConfigError(
            f"train.small_px must be at most crop.input_px, {config.crop.input_px}; got {config.train.small_px}. "
            f"Smaller crops are faster: --set train.small_px={config.crop.input_px * 3 // 4}"
        )
    _check_choices(config)
    _check_bounds(config.quantize)
    if not (math.isfinite(config.train.learning_rate) and config.train.learning_rate > 0):
        raise ConfigError(f"train.learning_rate must be above 0; got {config.train.learning_rate}.")
    at_most = {
        f"augment.{name}": (value, 1.0 if name in _PARTS else math.inf) for name, value in asdict(config.augment).items()
    }
    at_most |= {f"train.{name}": (getattr(config.train, name), math.inf) for name in ("weight_decay", "warmup_epochs")}
    at_most["data.others"] = (config.data.others, math.inf)
    for name, (value, highest) in at_most.items():
        if not (math.isfinite(value) and 0 <= value <= highest):
            wish = "at least 0" if math.isinf(highest) else f"between 0 and {highest:g}"
            raise ConfigError(f"{name} must be {wish}; got {value}.")
    if not config.name or set(config.name) & set("/\\") or config.name.startswith("."):
        raise ConfigError(f"name must be usable as a folder name; got {config.name!r}.")
