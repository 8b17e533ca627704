"""What decides each stage of a real build: for every option, tool and input file, the stages whose key it is in.

A stage that reads what another one made is not listed with that one's options: it runs again only if the bytes it reads differ,
which `test_stages.py` shows for any graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from lmedge.data.csv import write_csv
from lmedge.errors import ConfigError
from lmedge.pipeline import stage_table
from lmedge.pipeline.build import make_context
from lmedge.pipeline.configuration.config import config_from, merge_documents
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.pipeline.runs import lock as lock_module
from lmedge.pipeline.runs.lock import Components, StageRecord
from lmedge.pipeline.runs.stages import RunContext, components_of
from lmedge.pipeline.stage_table import STAGES
from lmedge.runtimes import bench
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.data.faces import FIVE_POINTS, sample_of, textured_image, write_image

NAMES = [stage.name for stage in STAGES]
BOTH = {"targets": ["onnxruntime", "openvino"]}
# The page prints the whole configuration.
REPORT = {"report"}

# Limits that what was evaluated is held to when the bundle is packed.
ON_FACES = ("max_nme", "int8_nme_loss", "int8_group_loss")

AUGMENTATION = (
    *("scale", "shift", "contrast", "brightness", "color", "gamma", "gray"),
    *("near_infrared", "cover", "blur", "noise", "jpeg"),
)

# One changed value of every setting, and the stages whose key it changes.
SETTINGS: list[tuple[str, Any, set[str]]] = [
    ("name", "other", {"bundle"}),
    ("targets", ["onnxruntime"], {"compile", "parity", "evaluate", "bench", "engines", "bundle"}),
    ("targets", ["openvino"], {"parity", "evaluate"}),
    ("targets", ["onnxruntime", "openvino", "tensorrt"], {"engines"}),
    ("targets", ["openvino", "onnxruntime"], set()),
    ("init", "{folder}/init/best.pt", {"train"}),
    ("data.sources", ["synthetic:9"], {"faces"}),
    ("data.schema", "WFLW_98", {"faces"}),
    ("data.detector", "{folder}/yunet.onnx", {"faces"}),
    ("data.others", 2.0, set()),  # one point set: there are no others
    ("crop.input_px", 96, {"train"}),
    ("crop.crop_scale", 1.5, {"train"}),
    ("model.trunk", "mobilenet_v3_small", {"train"}),
    ("model.width", 0.5, {"train"}),
    ("model.activation", "hardswish", {"train"}),
    ("model.head", "multiscale", {"train"}),
    ("model.head_channels", 32, {"train"}),
    ("model.confidence", True, {"train"}),
    ("train.epochs", 3, {"train"}),
    ("train.batch_size", 8, {"train"}),
    ("train.learning_rate", 0.1, {"train"}),
    ("train.weight_decay", 0.1, {"train"}),
    ("train.warmup_epochs", 1.0, {"train"}),
    ("train.loss", "l2", {"train"}),
    ("train.normalized", True, {"train"}),
    ("train.ema", 0.5, {"train"}),
    ("train.small_part", 0.5, {"train"}),
    ("train.small_px", 64, {"train"}),
    ("train.weak_part", 0.5, {"train"}),
    ("train.freeze_norms", True, {"train"}),
    ("train.teacher", "{folder}/teacher/best.pt", {"train"}),
    ("train.teacher_share", 0.25, {"train"}),
    ("train.seed", 1, {"train"}),
    ("train.threads", 1, set()),
    ("train.workers", 1, set()),
    ("augment.rotation_deg", 1.0, {"train"}),
    ("augment.flip", 0.25, {"train"}),
    *((f"augment.{name}", 0.5, {"train"}) for name in AUGMENTATION),
    ("quantize.images", 9, {"quantize"}),
    ("quantize.seed", 9, {"quantize"}),
    ("quantize.base", "nncf", {"quantize"}),
    ("quantize.ranges", "mse", {"quantize"}),
    ("quantize.equalise", False, {"quantize"}),
    ("quantize.correct_bias", False, {"quantize"}),
    ("quantize.finetune_epochs", 2, {"quantize"}),
    ("quantize.sensitivity", True, {"quantize"}),
    ("quantize.max_nme_loss", 3e-4, {"quantize"}),
    ("quantize.min_speedup", 1.5, {"quantize"}),
    ("parity.crops", 9, {"parity"}),
    ("bench.iterations", 9, {"bench"}),
    ("bench.threads", 2, {"bench"}),
    ("bundle.files", ["model.int8*.onnx"], {"bundle"}),
    ("bundle.openvino_ir", False, {"compile", "parity", "evaluate", "bench", "engines", "bundle"}),
    *((f"gates.{name}", 0.125, {"parity", "bundle"}) for name in ON_FACES),
    *((f"gates.{entry.name}", 0.125, {"parity"}) for entry in fields(RunConfig().gates) if entry.name not in ON_FACES),
]
# The manifest names the versions of what made its files, so another version changes the bundle too.
TOOLS: dict[str, set[str]] = {
    "numpy": {"faces", "train", "quantize", "parity", "evaluate", "bench", "bundle"},
    "opencv-python": {"faces", "train", "quantize", "parity", "evaluate", "bench", "bundle"},
    "torch": {"train", "export", "parity", "bundle"},
    "accelerate": {"train", "bundle"},
    "onnx": {"export", "quantize", "bundle"},
    "onnxscript": {"export", "bundle"},
    "onnxslim": {"export", "bundle"},
    "onnxruntime": {"export", "quantize", "parity", "evaluate", "bench", "bundle"},
    "openvino": {"compile", "parity", "evaluate", "bench", "bundle"},
    "tensorrt-rtx": {"engines"},
    "Jinja2": {"report"},
    "matplotlib": {"report"},
}


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def context_of(folder: Path, document: dict[str, Any] | None = None) -> RunContext:
    return make_context(config_from(merge_documents(BOTH, document or {})), folder / "run")


def keys(context: RunContext) -> dict[str, Components]:
    """The key of every stage, as if the stages before it had run; files that are missing get some content."""
    found: dict[str, Components] = {}
    for stage in STAGES:
        for path in stage.reads(context).values():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(path.name)
        found[stage.name] = components_of(context, stage)
        context.lock.records[stage.name] = StageRecord(found[stage.name], {})
    return found


def changed(before: dict[str, Components], after: dict[str, Components]) -> set[str]:
    return {name for name in NAMES if before[name] != after[name]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every file that a stage reads will be there; torch and the engines are never loaded."""
    root = tmp_path_factory.mktemp("keys")
    for name in ("init/best.pt", "teacher/best.pt", "yunet.onnx"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


# Options


@pytest.mark.parametrize(("key", "value", "stages"), SETTINGS, ids=[f"{key}={value}" for key, value, _ in SETTINGS])
def test_a_setting_changes_the_stages_it_decides(folder: Path, key: str, value: Any, stages: set[str]) -> None:
    if isinstance(value, str):
        value = value.format(folder=folder)
    assert changed(keys(context_of(folder)), keys(context_of(folder, nested(key, value)))) == stages | REPORT


def test_every_setting_is_in_the_table() -> None:
    def leaves(value: Any, prefix: str = "") -> Iterator[str]:
        for entry in fields(value):
            inner = getattr(value, entry.name)
            yield from leaves(inner, f"{prefix}{entry.name}.") if is_dataclass(inner) else [prefix + entry.name]

    assert {key for key, _, _ in SETTINGS} == set(leaves(RunConfig()))


def test_the_part_of_other_points_decides_where_there_are_some(folder: Path) -> None:
    def keys_of(others: float) -> dict[str, Components]:
        photos = {"sources": [f"csv:{write_photos(folder / 'joint')}", "synthetic:9"], "schema": "MMLAB_5", "others": others}
        context = context_of(folder, {"data": photos})
        context.sources[1] = replace(context.sources[1], schema=IBUG_68)  # type: ignore[index]
        return keys(context)

    assert changed(keys_of(1.0), keys_of(2.0)) == {"train"} | REPORT


def test_a_teacher_counts_by_its_bytes_not_by_its_place(folder: Path, tmp_path: Path) -> None:
    contexts = []
    for name, content in (("here", "a"), ("there", "a"), ("there", "b")):
        file = tmp_path / name / "best.pt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        contexts.append(keys(context_of(folder, {"train": {"teacher": str(file)}})))
    assert changed(contexts[0], contexts[1]) == set()
    assert changed(contexts[1], contexts[2]) == {"train"}


def test_where_the_photos_lie_is_in_no_key(folder: Path) -> None:
    contexts = []
    for name in ("here", "there"):
        context = context_of(folder, {"data": {"sources": [f"csv:{write_photos(folder / name)}"], "schema": "MMLAB_5"}})
        contexts.append(keys(context))
    assert changed(*contexts) == set()


def test_photos_of_one_name_outside_the_folder_are_all_in_the_key(tmp_path: Path) -> None:
    photos = [write_image(tmp_path / name / "face.png", textured_image(0)) for name in ("left", "right")]
    labels = [sample_of(photo, schema=MMLAB_5) for photo in photos]
    (tmp_path / "labels").mkdir()
    write_csv(tmp_path / "labels/faces.csv", labels)
    document = {"data": {"sources": [f"csv:{tmp_path / 'labels/faces.csv'}"], "schema": "MMLAB_5"}}
    before = keys(context_of(tmp_path, document))
    for photo in photos:
        flip_last_byte(photo)
        assert changed(before, keys(context_of(tmp_path, document))) == {"faces"}
        flip_last_byte(photo)


@pytest.mark.parametrize("option", ["init", "train.teacher"])
def test_a_run_does_not_start_from_what_it_replaces(tmp_path: Path, option: str) -> None:
    own = tmp_path / "run/train/best.pt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"would replace .*best\.pt.*--out"):
        context_of(tmp_path, nested(option, str(tmp_path / "run")))
    assert own.read_bytes() == b"weights"


# Tools


def with_versions(folder: Path, versions: dict[str, str]) -> dict[str, Components]:
    with patch.object(lock_module, "version", lambda name: versions.get(name, "1")):
        return keys(context_of(folder))


@pytest.mark.parametrize("tool", TOOLS)
def test_another_version_of_a_tool_changes_the_stages_that_call_it(folder: Path, tool: str) -> None:
    assert changed(with_versions(folder, {}), with_versions(folder, {tool: "2"})) == TOOLS[tool]


def test_every_tool_is_in_the_table() -> None:
    assert {tool for stage in STAGES for tool in stage.tools} == set(TOOLS)


def test_another_version_of_lmedge_changes_every_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(context_of(folder))
    monkeypatch.setattr(lock_module, "__version__", "99")
    assert changed(before, keys(context_of(folder))) == set(NAMES)


@pytest.mark.parametrize("fact", ["cpu", "arch", "cores_usable"])
def test_what_was_measured_on_another_machine_is_measured_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    before, machine = keys(context_of(folder)), bench.describe_machine()
    monkeypatch.setattr(bench, "describe_machine", lambda: {**machine, fact: "other"})
    assert changed(before, keys(context_of(folder))) == {"parity", "evaluate", "bench"}


def test_a_bound_on_speed_belongs_to_the_machine_that_it_was_measured_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"quantize": {"min_speedup": 1.5}}
    before, machine = keys(context_of(folder, document)), bench.describe_machine()
    monkeypatch.setattr(bench, "describe_machine", lambda: {**machine, "cpu": "other"})
    assert changed(before, keys(context_of(folder, document))) == {"quantize", "parity", "evaluate", "bench"}


@pytest.mark.parametrize(("setting", "tool"), [({"base": "best"}, "nncf"), ({"finetune_epochs": 1}, "torch")])
def test_a_tool_that_a_setting_brings_into_quantisation_decides_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], tool: str
) -> None:
    def versioned(document: dict[str, Any]) -> list[dict[str, Components]]:
        found = []
        for number in ("1", "2"):
            monkeypatch.setattr(stage_table, "version", lambda name, number=number: number if name == tool else "1")
            found.append(keys(context_of(folder, document)))
        return found

    assert changed(*versioned({"quantize": setting})) == {"quantize"}
    assert changed(*versioned({})) == set()


def test_augmentation_decides_quantisation_where_it_fine_tunes(folder: Path) -> None:
    tuned, other = {"quantize": {"finetune_epochs": 1}}, {"augment": {"flip": 0.25}}
    before, after = (keys(context_of(folder, merge_documents(tuned, more))) for more in ({}, other))
    assert changed(before, after) == {"train", "quantize", "report"}


# Input files


def write_photos(folder: Path) -> Path:
    """Four photos with labels."""
    samples = []
    for number in range(4):
        image = write_image(folder / f"face{number}.png", textured_image(number))
        samples.append(sample_of(image, np.array(FIVE_POINTS) + number, MMLAB_5))
    write_csv(folder / "faces.csv", samples)
    return folder / "faces.csv"


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["face2.png", "faces.csv"])
def test_one_byte_of_the_data_changes_the_faces(tmp_path: Path, name: str) -> None:
    document = {"data": {"sources": [f"csv:{write_photos(tmp_path / 'photos')}"], "schema": "MMLAB_5"}}
    before = keys(context_of(tmp_path, document))
    content = (tmp_path / "photos" / name).read_bytes()
    (tmp_path / "photos" / name).write_bytes(content[:-1] + (b"4" if name.endswith("csv") else b"\x00"))
    after = keys(context_of(tmp_path, document))
    assert changed(before, after) == {"faces"}
    names = [key for key in after["faces"] if after["faces"][key] != before["faces"][key]]
    assert names == [f"input csv:{name}"]


def readers(context: RunContext, file: Path) -> set[str]:
    return {stage.name for stage in STAGES if file in stage.reads(context).values()}


def test_one_byte_of_any_file_between_stages_changes_the_stages_that_read_it(folder: Path) -> None:
    context = context_of(folder)
    before = keys(context)
    between = sorted({path for stage in STAGES for path in stage.reads(context).values()})
    assert len(between) > 15
    for file in between:
        flip_last_byte(file)
        assert changed(before, keys(context_of(folder))) == readers(context, file), file
        flip_last_byte(file)
    assert changed(before, keys(context_of(folder))) == set()
