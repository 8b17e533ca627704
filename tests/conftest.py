"""Settings that make every run the same, and the fixtures that all folders share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from tests import requirements

# The same examples on every machine and every run; `--hypothesis-profile=explore` looks for new ones.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)


def pytest_configure(config: pytest.Config) -> None:
    # Small networks gain nothing from more threads, and results do not depend on the number of cores. Before NumPy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if config.getoption("--hypothesis-profile", None) is None:
        hypothesis.settings.load_profile("repeatable")


def pytest_sessionstart() -> None:
    if absent := [reason for reason in map(requirements.missing, requirements.required()) if reason]:
        pytest.exit("LMEDGE_REQUIRE: " + "; ".join(absent), returncode=1)


@pytest.fixture
def require() -> Callable[..., None]:
    """`require("openvino")` skips the test where that is not installed; see `tests.requirements.require`."""
    return requirements.require


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of labelled photographs (300w, wflw, mmlab5); skips the test where there is none."""
    requirements.require("data")
    return requirements.DATA_FOLDER
