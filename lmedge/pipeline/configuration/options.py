"""Everything that a run can be told, with its defaults: one dataclass per section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmedge.data.augment import AugmentSpec
from lmedge.runtimes.gates import GateLimits

HOST_ENGINES = ("onnxruntime", "openvino")
DEFAULT_SOURCE = "synthetic:2000"


@dataclass(frozen=True)
class DataOptions:
    """`sources`: "KIND:PATH" texts, joined; `schema`: a name or TOML file where the kind leaves it open, and of several point
    sets the one that is exported; `detector`: a YuNet file, run on the training photos so that the bundle knows its boxes too;
    `others`: faces of other point sets in an epoch, per face of the exported one."""

    sources: tuple[str, ...] = (DEFAULT_SOURCE,)
    schema: str = ""
    detector: str = ""
    others: float = 1.0


@dataclass(frozen=True)
class CropOptions:
    """`input_px`: side of the network's crop; `crop_scale`: its side over the extent of the points."""

    input_px: int = 112
    crop_scale: float = 1.25


@dataclass(frozen=True)
class ModelOptions:
    """`trunk`: a published network; `width`: its multiplier; `activation`: relu, relu6 or hardswish; `head`: how coordinates
    are found; `head_channels`: what it keeps per position; `confidence`: also say how sure each point is."""

    trunk: str = "mobilenet_v4_conv_small"
    width: float = 1.0
    activation: str = "relu6"
    head: str = "integral"
    head_channels: int = 64
    confidence: bool = False


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: of all training faces.
        batch_size: of all processes together.
        learning_rate: the highest; linear warm-up over `warmup_epochs`, then half a cosine down to zero.
        weight_decay: of AdamW, on weights of convolutions and linear layers only.
        loss: l2, l1, smooth_l1, wing or soft_wing, in pixels of the crop.
        normalized: weigh errors by each face's normaliser, as the NME does.
        ema: decay of the running mean of the weights that is validated and kept; 0 keeps the last weights.
        small_part, small_px: this part of the epochs sees crops of this size, which is faster; for heads that work at any size.
        weak_part: this part of the epochs, at the end, sees weakly changed pictures.
        freeze_norms: batch norms keep their statistics, as for fine-tuning with `init`.
        teacher: a checkpoint, run or bundle whose answers are further labels; `teacher_share`: their weight.
        seed: of weights, order and augmentation.
        threads: CPU threads of torch; 0 leaves torch's default.
        workers: processes that make the views; 0 makes them in this one.
    """

    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    warmup_epochs: float = 2.0
    loss: str = "l1"
    normalized: bool = False
    ema: float = 0.998
    small_part: float = 0.0
    small_px: int = 80
    weak_part: float = 0.1
    freeze_norms: bool = False
    teacher: str = ""
    teacher_share: float = 0.5
    seed: int = 0
    threads: int = 0
    workers: int = 0


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        images: calibration crops, from training faces.
        seed: of their choice.
        base: whose steps prepare the network: lmedge, nncf, or best, which tries both and keeps what adds least to the NME.
        ranges: how ranges are found: min-max, coverage, percentile, mse, or best.
        equalise, correct_bias: steps of lmedge's base.
        finetune_epochs: of quantisation-aware fine-tuning over the training faces; 0 leaves it out.
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
    finetune_epochs: int = 0
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
class BundleOptions:
    """`files`: patterns of what goes into the bundle, e.g. "model.int8*.onnx"; what no pattern matches stays in its stage.
    `openvino_ir`: OpenVINO gets files of its own, which open faster; without them it reads the ONNX files, and the bundle is
    half as large."""

    files: tuple[str, ...] = ("*",)
    openvino_ir: bool = True


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
    bundle: BundleOptions = field(default_factory=BundleOptions)
    gates: GateLimits = field(default_factory=GateLimits)

    @property
    def writes_ir(self) -> bool:
        """Whether OpenVINO is a target and gets files of its own."""
        return "openvino" in self.engines and self.bundle.openvino_ir

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that are built and checked on this machine; ONNX Runtime where every target is built elsewhere."""
        return tuple(sorted(set(self.targets) & set(HOST_ENGINES))) or HOST_ENGINES[:1]
