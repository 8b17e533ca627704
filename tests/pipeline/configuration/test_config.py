"""Run configurations: defaults, a TOML file, --set, and a clear word about everything that cannot be used."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.augment import AugmentSpec
from lmedge.errors import ConfigError
from lmedge.pipeline.configuration.config import apply_settings, config_from, load_config, merge_documents
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.runtimes.gates import GateLimits

SECTIONS = [entry.name for entry in fields(RunConfig) if is_dataclass(getattr(RunConfig(), entry.name))]


def toml(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text, encoding="utf-8")
    return file


# Sources of settings


def test_defaults_alone_are_a_configuration() -> None:
    assert load_config() == RunConfig()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        """
        name = "ä face"
        targets = ["openvino", "tensorrt"]
        [data]
        sources = ["300w:faces/300w", "synthetic:100"]
        [train]
        epochs = 7
        learning_rate = 1
        [augment]
        flip = 0.0
        """,
    )
    config = load_config(file)
    assert (config.name, config.targets) == ("ä face", ("openvino", "tensorrt"))
    assert config.data.sources == ("300w:faces/300w", "synthetic:100")
    assert (config.train.epochs, config.train.learning_rate) == (7, 1.0)
    assert config.augment == AugmentSpec(flip=0.0)
    assert config.quantize == RunConfig().quantize


def test_settings_win_over_the_file_and_options_over_settings(tmp_path: Path) -> None:
    file = toml(tmp_path, "[train]\nepochs = 1\nseed = 1\nbatch_size = 4")
    config = load_config(file, ["train.epochs=2", "train.seed=2"], {"train": {"epochs": 3}})
    assert (config.train.epochs, config.train.seed, config.train.batch_size) == (3, 2, 4)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train.epochs=20", 20),
        ("train.epochs = 20", 20),
        ("train.learning_rate=1e-3", 1e-3),
        ("train.loss=l2", "l2"),
        ('train.loss="l2"', "l2"),
        ('targets=["openvino"]', ("openvino",)),
        ("gates.int8_p99_px=2", 2.0),
        ("quantize.max_nme_loss=3e-4", 3e-4),
        ("quantize.min_speedup=2", 2.0),
        ("quantize.sensitivity=true", True),
        ("init=runs/faces/bundle", "runs/faces/bundle"),
        ("data.schema=a=b.toml", "a=b.toml"),
        ("data.detector=", ""),
    ],
)
def test_a_setting_is_toml_or_else_text(setting: str, value: Any) -> None:
    found: Any = load_config(settings=[setting])
    for part in setting.partition("=")[0].strip().split("."):
        found = getattr(found, part)
    assert found == value


def test_the_last_of_two_settings_counts() -> None:
    assert load_config(settings=["train.epochs=2", "train.epochs=3"]).train.epochs == 3


def test_merging_changes_neither_document() -> None:
    first, second = {"train": {"epochs": 1}}, {"train": {"seed": 2}, "name": "x"}
    assert merge_documents(first, second) == {"train": {"epochs": 1, "seed": 2}, "name": "x"}
    assert apply_settings(first, ["train.epochs=5"]) == {"train": {"epochs": 5}}
    assert (first, second) == ({"train": {"epochs": 1}}, {"train": {"seed": 2}, "name": "x"})


def test_a_configuration_comes_back_from_json() -> None:
    config = load_config(
        settings=["targets=['openvino']", "gates.max_nme=0.5", "train.learning_rate=0.01", "augment.scale=0.3"]
    )
    assert config_from(json.loads(json.dumps(asdict(config)))) == config


def test_gate_limits_reach_the_gates() -> None:
    assert load_config(settings=["gates.fp16_max_px=0.5"]).gates == GateLimits(fp16_max_px=0.5)
    assert RunConfig().gates == GateLimits()


@pytest.mark.parametrize(
    ("targets", "engines"),
    [
        (["openvino"], ("openvino",)),
        (["openvino", "onnxruntime"], ("onnxruntime", "openvino")),
        (["tensorrt", "openvino"], ("openvino",)),
        (["tensorrt"], ("onnxruntime",)),
    ],
)
def test_engines_are_the_targets_that_run_here(targets: list[str], engines: tuple[str, ...]) -> None:
    assert config_from({"targets": targets}).engines == engines


# What cannot be used


@pytest.mark.parametrize(
    ("document", "known", "nearest"),
    [
        ({"trian": {}}, "Unknown setting trian; known here: name, targets, init, data,", "Did you mean train?"),
        ({"train": {"epoch": 1}}, "train.epoch; known here: epochs, batch_size,", "Did you mean train.epochs?"),
        ({"epoch": 1}, "Unknown setting epoch; known here: name,", "Did you mean train.epochs?"),
        ({"model": {"learning_rte": 1}}, "model.learning_rte; known here: trunk,", "Did you mean train.learning_rate?"),
        ({"epochs": 1}, "Unknown setting epochs; known here: name,", "Did you mean train.epochs?"),
        ({"data": {"source": []}}, "data.source; known here: sources, schema, detector, others.", "Did you mean data.sources?"),
        ({"gates": {"fp32_px": 1}}, "gates.fp32_px; known here: fp32_max_px,", "Did you mean gates.fp32_max_px?"),
        (
            {"model": {"zzzzzzzz": 1}},
            "model.zzzzzzzz; known here: trunk, width, activation, head, head_channels, confidence.",
            None,
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(document: dict[str, Any], known: str, nearest: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from(document)
    assert known in str(caught.value)
    assert (nearest or "") in str(caught.value)
    assert ("Did you mean" in str(caught.value)) == (nearest is not None)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_must_be_a_table(section: str) -> None:
    with pytest.raises(ConfigError, match=f"{section} must be a table of settings; got 3"):
        config_from({section: 3})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"train": {"epochs": 1.5}}, r"train\.epochs: Input should be a valid integer.*; got 1\.5"),
        ({"train": {"epochs": "20"}}, r"train\.epochs: Input should be a valid integer; got '20'"),
        ({"train": {"epochs": True}}, r"train\.epochs: Input should be a valid integer; got True"),
        ({"train": {"learning_rate": "fast"}}, r"train\.learning_rate: Input should be a valid number; got 'fast'"),
        ({"quantize": {"max_nme_loss": "0.0003"}}, r"quantize\.max_nme_loss: Input should be a valid number; got '0\.0003'"),
        ({"train": {"loss": 3}}, r"train\.loss: Input should be a valid string; got 3"),
        ({"targets": "openvino"}, r"targets: Input should be a valid array; got 'openvino'"),
        ({"data": {"sources": [3]}}, r"data\.sources\.0: Input should be a valid string; got 3"),
        ({"name": 3}, r"name: Input should be a valid string; got 3"),
        ({"gates": {"fp32_max_px": True}}, r"gates\.fp32_max_px: Input should be a valid number; got True"),
    ],
)
def test_a_value_of_the_wrong_kind_is_shown(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from(document)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochs=0", "train.epochs must be at least 1; got 0"),
        ("train.batch_size=1", "train.batch_size must be at least 2; got 1"),
        ("train.seed=-1", "train.seed must be at least 0; got -1"),
        ("train.threads=-1", "train.threads must be at least 0"),
        ("model.head_channels=0", "model.head_channels must be at least 1"),
        ("quantize.images=0", "quantize.images must be at least 1"),
        (
            "quantize.max_nme_loss=-0.1",
            "quantize.max_nme_loss must be between 0 and 0.02; got -0.1. It is a fraction: 0.0003 is",
        ),
        (
            "quantize.max_nme_loss=0.03",
            "quantize.max_nme_loss must be between 0 and 0.02; got 0.03. It is a fraction: 0.0003 is",
        ),
        ("quantize.max_nme_loss=nan", "quantize.max_nme_loss must be between 0 and 0.02; got nan"),
        ("quantize.min_speedup=0", "quantize.min_speedup must be above 0; got 0"),
        ("quantize.min_speedup=inf", "quantize.min_speedup must be above 0; got inf"),
        ("parity.crops=0", "parity.crops must be at least 1"),
        ("bench.iterations=0", "bench.iterations must be at least 1"),
        ("bench.threads=0", "bench.threads must be at least 1"),
        ("train.learning_rate=0.0", "train.learning_rate must be above 0; got 0.0"),
        ("train.learning_rate=nan", "train.learning_rate must be above 0; got nan"),
        ("train.learning_rate=inf", "train.learning_rate must be above 0; got inf"),
        ("train.weight_decay=-0.1", "train.weight_decay must be at least 0; got -0.1"),
        ("train.warmup_epochs=nan", "train.warmup_epochs must be at least 0; got nan"),
        ("augment.flip=1.5", "augment.flip must be between 0 and 1; got 1.5"),
        ("augment.near_infrared=1.5", "augment.near_infrared must be between 0 and 1; got 1.5"),
        ("augment.cover=-0.1", "augment.cover must be between 0 and 1; got -0.1"),
        ("augment.blur=2", "augment.blur must be between 0 and 1; got 2.0"),
        ("augment.noise=nan", "augment.noise must be between 0 and 1; got nan"),
        ("augment.jpeg=1.1", "augment.jpeg must be between 0 and 1; got 1.1"),
        ("augment.gamma=-1", "augment.gamma must be at least 0; got -1.0"),
        ("augment.contrast=2", "augment.contrast must be between 0 and 1; got 2.0"),
        ("augment.rotation_deg=inf", "augment.rotation_deg must be at least 0; got inf"),
        ("gates.fp32_max_px=-1", "^gates.fp32_max_px must be a number of at least 0; got -1.0"),
        ("gates.max_nme=nan", "^gates.max_nme must be a number of at least 0; got nan"),
        ("targets=[]", "targets must be some of onnxruntime, openvino, tensorrt; got none"),
        ("targets=['openvin']", r"got openvin. Did you mean openvino\?"),
        ("train.loss=wings", r"train.loss must be one of l2, l1, smooth_l1, wing, soft_wing; got 'wings'. Did you mean wing\?"),
        ("model.trunk=vgg", "model.trunk must be one of plain_cnn, resnet18, .*mobilenet_v4_conv_small, .*; got 'vgg'"),
        ("model.activation=relu7", r"model.activation must be one of relu, relu6, hardswish; got 'relu7'. Did you mean relu"),
        ("model.width=5", "model.width must be between 0.1 and 4; got 5.0"),
        ("crop.input_px=16", "crop.input_px must be between 32 and 1024; got 16"),
        ("crop.crop_scale=nan", "crop.crop_scale must be between 0.5 and 10; got nan"),
        ("model.head=integrall", r"model.head must be one of .*integral; got 'integrall'. Did you mean integral\?"),
        ("train.ema=1", "train.ema must be between 0 and 0.99999; got 1.0"),
        ("train.small_part=1.5", "train.small_part must be between 0 and 1; got 1.5"),
        ("train.small_px=16", "train.small_px must be between 32 and 1024; got 16"),
        ("train.weak_part=-1", "train.weak_part must be between 0 and 1; got -1.0"),
        ("train.teacher_share=2", "train.teacher_share must be between 0 and 1; got 2.0"),
        ("train.workers=-1", "train.workers must be at least 0; got -1"),
        ("data.others=-1", "data.others must be at least 0; got -1.0"),
        ("data.others=inf", "data.others must be at least 0; got inf"),
        ("name=", "name must be usable as a folder name; got ''"),
        ("name=a/b", "name must be usable as a folder name; got 'a/b'"),
        ("name=..", "name must be usable as a folder name; got '..'"),
    ],
)
def test_a_value_out_of_range_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(settings=[setting])


@pytest.mark.parametrize("setting", ["train.epochs", "=3", " =3", ""])
def test_a_setting_of_another_form_is_explained(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"--set takes key\.subkey=value, e\.g\. --set train\.epochs=20; got "):
        load_config(settings=[setting])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read .*missing\.toml: No such file"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"run\.toml is not valid TOML"):
        load_config(toml(tmp_path, "[train\nepochs = 1"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from([*SECTIONS, "name", "targets", "init", "epochs", "width", "sources"])


@given(document=st.dictionaries(keys, json_values | st.dictionaries(keys, json_values, max_size=3), max_size=3))
def test_any_document_is_a_configuration_or_a_config_error(document: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert isinstance(config_from(document), RunConfig)
