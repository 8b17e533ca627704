"""The timing caches in a bundle: what was measured for its engines, so that compiling again takes the same kernels."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmedge.bundle import Artifact, Bundle, check_digest
from lmedge.errors import DigestMismatchError, LmedgeError
from lmedge.export.compile_tensorrt import FOLDER, engine_stem, machine_tag
from lmedge.export.engine_options import EngineOptions
from lmedge.runtimes.engine_record import EngineRecord, record_path
from lmedge.runtimes.tensorrt_machine import EngineMachine


def timings_path(machine: EngineMachine) -> str:
    """Where a bundle keeps what was measured on machines of this kind: one file each, since TensorRT takes no other's."""
    return f"{FOLDER}/timing.{machine_tag(machine)}.cache"


def take_timings(bundle: Bundle, machine: EngineMachine, root: Path) -> None:
    """Copies the bundle's timing cache, where it is the one of the manifest."""
    path = timings_path(machine)
    for artifact in bundle.manifest.artifacts:
        if path in dict(artifact.companions):
            try:
                check_digest(replace(artifact, path=path, sha256=dict(artifact.companions)[path], companions=()))
            except DigestMismatchError:
                return  # damaged: kernels are measured anew, and the file is replaced
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.root / path, root / path)
            return


def was_built_before(bundle: Bundle, source: Artifact, machine: EngineMachine, options: EngineOptions) -> bool:
    """Whether the bundle has an engine of this file, machine and options, so that its timing cache holds every kernel of it."""
    path = f"{FOLDER}/{engine_stem(source.precision, machine)}.engine"
    if not any((a.path, a.made_from) == (path, source.sha256) for a in bundle.manifest.artifacts):
        return False
    try:
        record = EngineRecord.read(bundle.root / record_path(path))
    except LmedgeError:
        return False
    return record.machine == machine and options.made(record)


def with_new_timings(bundle: Bundle, added: Sequence[Artifact]) -> list[Artifact]:
    """Engines that stay in the bundle and share the timing cache of the added ones, with the digest it has now."""
    new = dict(added[0].companions)
    shared = next(path for path in new if path.endswith(".cache"))
    paths = {artifact.path for artifact in added}
    return [
        replace(artifact, companions=tuple((path, new[path] if path == shared else sha) for path, sha in artifact.companions))
        for artifact in bundle.manifest.artifacts
        if artifact.path not in paths and shared in dict(artifact.companions)
    ]
