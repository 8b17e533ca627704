"""Every runtime behind the same fixtures; those whose engine is missing are skipped, unless LMEDGE_REQUIRE names it.

TensorRT is played by a fake, once for each version that lmedge supports: its id is "tensorrt-10.3.0".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lmedge.bundle import Artifact, Bundle
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.fake import fake_bundle
from tests import bundles, requirements
from tests.tensorrt.api_names import VERSIONS
from tests.tensorrt.engines import tiny_engine
from tests.tensorrt.fake_gpu import FakeGpu
from tests.tensorrt.fixtures import CUDA_OF, install

OpenRuntime = Callable[..., Runtime]


@pytest.fixture(scope="session")
def fake_faces(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that needs no engine."""
    return fake_bundle(tmp_path_factory.mktemp("fake") / "bundle", bundles.SCHEMA, bundles.SPEC)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for ONNX Runtime and OpenVINO."""
    return bundles.tiny_bundle(tmp_path_factory.mktemp("tiny"))


PLAYED = tuple(f"tensorrt-{version}" for version in VERSIONS)


# For the module only: no other test shall find a GPU.
@pytest.fixture(scope="module", params=["fake", "onnxruntime", "openvino", "torch", *PLAYED])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    name, _, version = request.param.partition("-")
    with pytest.MonkeyPatch.context() as patch:
        if version:
            requirements.require("onnx", "onnxruntime")
            gpu = FakeGpu(driver_version=CUDA_OF[version], runtime_version=CUDA_OF[version])
            install(gpu, version, patch)
        elif not find_runtime(name).status().installed:  # asked first: an adapter imports its engine without telemetry
            requirements.require(name)
        yield name
        if version:
            assert [*gpu.faults, *gpu.allocations] == []


@pytest.fixture(scope="module")
def artifact(backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A network that the backend can open."""
    if backend == "fake":
        bundle: Bundle = request.getfixturevalue("fake_faces")
        return bundle.select("fake")
    if backend == "torch":
        return bundles.artifact_of(bundles.tiny_program(tmp_path_factory.mktemp("program")), format="torch")
    if backend == "tensorrt":
        return tiny_engine(tmp_path_factory.mktemp("engine"))
    return bundles.artifact_of(bundles.tiny_onnx(tmp_path_factory.mktemp("onnx")))


@pytest.fixture
def open_runtime(backend: str, artifact: Artifact) -> Iterator[OpenRuntime]:
    """Opens the backend on its network, or on `artifact=`; closed after the test."""
    opened: list[Runtime] = []

    def open_one(*, artifact: Artifact = artifact, **options: Any) -> Runtime:
        opened.append(find_runtime(backend).open(artifact, **options))
        return opened[-1]

    yield open_one
    for runtime in opened:
        runtime.close()
