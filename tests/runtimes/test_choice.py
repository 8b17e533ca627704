"""backend="auto": measured once, remembered for exactly this bundle and machine, and never an engine that answers wrongly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lmedge import Bundle, FaceLandmarker
from lmedge.bundle import ANY_ARCH, Artifact, Manifest, write_bundle
from lmedge.errors import BackendUnavailableError
from lmedge.runtimes import choice, choice_cache, find_runtime
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus
from lmedge.runtimes.choice import choose_engine
from lmedge.runtimes.fake import FakeRuntime
from tests.requirements import require
from tests.runtimes.engines_for_tests import BOX, IMAGE, SkipsTheEngine


class Slow(FakeRuntime):
    name = "slow"

    def _infer(self, feeds: Results) -> Results:
        time.sleep(0.003)
        return super()._infer(feeds)


class Wrong(SkipsTheEngine):
    name = "wrong"


class Fails(FakeRuntime):
    name = "fails"
    calls = 0

    def _infer(self, feeds: Results) -> Results:
        Fails.calls += 1
        if Fails.calls > 10:
            raise RuntimeError("out of luck")
        return super()._infer(feeds)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lmedge" / "engines"


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[Bundle]:
    """The bundles that were measured, and a machine whose race is short."""
    seen: list[Bundle] = []
    real = choice._race
    monkeypatch.setattr(choice, "_race", lambda bundle, *rest: seen.append(bundle) or real(bundle, *rest))
    monkeypatch.setattr(choice, "_TURNS", 3)
    return seen


@pytest.fixture
def bundle(fake_faces: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle that the engines "fake", "slow", "wrong" and "fails" can run, as far as they can."""
    engines: dict[str, type[Runtime]] = {"fake": FakeRuntime, "slow": Slow, "wrong": Wrong, "fails": Fails}
    Fails.calls = 0
    for module in ("lmedge.runtimes.choice", "lmedge.runtimes.checks", "lmedge.runtimes.landmarker"):
        monkeypatch.setattr(f"{module}.find_runtime", lambda name: engines.get(name) or find_runtime(name))
    return serving(fake_faces, tmp_path / "bundle", *engines)


def serving(fake_faces: Bundle, folder: Path, *engines: str) -> Bundle:
    old = fake_faces.select("fake")
    artifact = Artifact(**{**vars(old), "serves": dict.fromkeys(engines, (ANY_ARCH,))})
    manifest = fake_faces.manifest
    changed = Manifest(name=manifest.name, schema=manifest.schema, preprocess=manifest.preprocess, artifacts=(artifact,))
    return write_bundle(folder, changed, fake_faces.golden_file().read_bytes())


def test_the_fastest_right_engine_is_taken_and_it_says_which(bundle: Bundle, cache: Path, races: list[Bundle]) -> None:
    with FaceLandmarker.open(bundle, backend="auto") as landmarker:
        chosen = landmarker.choice
        assert chosen is not None
        assert landmarker.runtime.name == chosen.backend == "fake"
        assert landmarker.self_test.passed
        assert not chosen.remembered
        assert [one.backend for one in chosen.contenders[:2]] == ["fake", "slow"]
        reasons = {one.backend: one.reason for one in chosen.contenders if one.latency_ms is None}
        assert "recorded answers" in reasons["wrong"]
        assert "out of luck" in reasons["fails"]
        assert chosen.text.startswith("fake fp32 on cpu, ")
        assert "then slow" in chosen.text
        assert "not wrong" in chosen.text
        assert len(landmarker.predict(IMAGE, [BOX])) == 1


def test_it_is_measured_once(bundle: Bundle, cache: Path, races: list[Bundle]) -> None:
    first, second = choose_engine(bundle), choose_engine(bundle)
    assert len(races) == 1
    assert second.remembered
    assert (second.backend, second.artifact, second.latency_ms) == (first.backend, first.artifact, first.latency_ms)
    assert second.contenders == first.contenders
    assert "(remembered)" in second.text


@pytest.mark.parametrize("change", ["bundle", "machine", "engine", "threads", "precision"])
def test_whatever_could_change_the_answer_measures_again(
    change: str,
    bundle: Bundle,
    fake_faces: Bundle,
    cache: Path,
    races: list[Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose_engine(bundle)
    described = choice.describe_machine()
    if change == "bundle":
        choose_engine(serving(fake_faces, tmp_path / "other", "slow", "fake"))
    elif change == "machine":
        monkeypatch.setattr(choice, "describe_machine", lambda: {**described, "cpu": "another processor"})
        choose_engine(bundle)
    elif change == "engine":
        monkeypatch.setattr(choice, "describe_machine", lambda: {**described, "versions": {"onnxruntime": "99"}})
        choose_engine(bundle)
    elif change == "threads":
        choose_engine(bundle, threads=2)
    else:
        choose_engine(bundle, precision="fp32")
    assert len(races) == 2


def test_a_bundle_of_another_digest_never_gets_the_remembered_engine(
    bundle: Bundle, fake_faces: Bundle, cache: Path, races: list[Bundle], tmp_path: Path
) -> None:
    choose_engine(bundle)
    assert choose_engine(serving(fake_faces, tmp_path / "other", "slow")).backend == "slow"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: text[: len(text) // 2], id="cut off"),
        pytest.param(lambda text: "[1, 2]", id="no object"),
        pytest.param(lambda text: text.replace('"key"', '"lock"'), id="no key"),
        pytest.param(lambda text: text.replace("model.fp32.fake", "../model"), id="a file that the bundle has not"),
        pytest.param(lambda text: text.replace('"device": "cpu"', '"device": "npu"'), id="a device that is not here"),
        pytest.param(lambda text: text.replace('"contenders": [', '"contenders": [3,'), id="another shape"),
    ],
)
def test_a_spoilt_cache_is_measured_over(spoil: Callable[[str], str], bundle: Bundle, cache: Path, races: list[Bundle]) -> None:
    expected = choose_engine(bundle).backend
    [file] = cache.iterdir()
    file.write_text(spoil(file.read_text()))
    assert choose_engine(bundle).backend == expected
    assert len(races) == 2
    assert json.loads(file.read_text())["value"]["backend"] == expected


def test_a_copied_cache_file_is_no_answer_to_another_question(cache: Path) -> None:
    assert choice_cache.remember({"bundle": "a"}, {"backend": "one"})
    [file] = cache.iterdir()
    choice_cache.remember({"bundle": "b"}, {"backend": "two"})
    other = next(path for path in cache.iterdir() if path != file)
    file.replace(other)
    assert choice_cache.recall({"bundle": "b"}) is None


def test_a_cache_that_cannot_be_written_is_no_error(
    bundle: Bundle, tmp_path: Path, races: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose_engine(bundle).backend == choose_engine(bundle).backend == "fake"
    assert len(races) == 2


def test_a_relative_cache_folder_is_ignored_as_the_specification_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("cache", "", "./cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        assert choice_cache.cache_folder() == tmp_path / ".cache" / "lmedge" / "engines"


def test_where_no_engine_is_right_the_reasons_are_given(
    fake_faces: Bundle, bundle: Bundle, cache: Path, tmp_path: Path
) -> None:
    only_wrong = serving(fake_faces, tmp_path / "other", "wrong")
    with pytest.raises(BackendUnavailableError, match="recorded answers"):
        choose_engine(only_wrong)
    with pytest.raises(BackendUnavailableError, match="no device 'cuda'"):
        choose_engine(bundle, device="cuda")
    assert not cache.exists()


def test_an_engine_that_is_not_installed_is_no_contender(
    bundle: Bundle, cache: Path, races: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slow, "status", classmethod(lambda cls: RuntimeStatus(False, None, (), "not here.", "Install it")))
    assert "slow" not in {one.backend for one in choose_engine(bundle).contenders}


@pytest.mark.parametrize("precision", [None, "int8"])
def test_real_engines_race(precision: str | None, cache: Path) -> None:
    require("onnxruntime")
    with FaceLandmarker.open("zoo:mmlab5", backend="auto", precision=precision, threads=1) as landmarker:
        chosen = landmarker.choice
        assert chosen is not None
        assert chosen.latency_ms > 0
        assert precision in (None, landmarker.runtime.artifact.precision)
        assert landmarker.self_test.passed
