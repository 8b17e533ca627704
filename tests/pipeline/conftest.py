"""Runs that several files look at: one whole build, and one short training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pipeline.small_run import Built, Watch, around_stages, digests_of, small_build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A finished build; tests do not change it."""
    folder = tmp_path_factory.mktemp("built")
    watch = Watch(folder / "run")
    with around_stages(watch):
        result = small_build(folder)
    return Built(folder, result, watch.opened, digests_of(folder / "run"))


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Path:
    """The finished build in a folder of its own, to change."""
    shutil.copytree(built.run, tmp_path / "run")
    return tmp_path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training that nothing interrupted."""
    from tests.pipeline.drawn_runs import short_run

    folder = tmp_path_factory.mktemp("undisturbed")
    short_run(folder)
    return folder


@pytest.fixture
def without_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the export at the end of a run, which takes longer than the training here."""
    from lmedge.pipeline.training import train as train_module

    monkeypatch.setattr(train_module, "export_program", lambda *_: None)
