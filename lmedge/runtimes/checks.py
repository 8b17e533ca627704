"""What there is to verify in a bundle: which files on which backends, and whether the files belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmedge.bundle import Artifact, Bundle
from lmedge.errors import BackendUnavailableError, BundleError, ParityError
from lmedge.runtimes import find_runtime


@dataclass(frozen=True)
class PlannedCheck:
    """One file that a backend will be checked on."""

    backend: str
    artifact: Artifact


@dataclass(frozen=True)
class SkippedCheck:
    """A backend that the bundle serves, or one file of it, that this machine cannot check; to be shown as not verified."""

    backend: str
    reason: str


def select_here(
    bundle: Bundle, backend: str, precision: str = "fp32", *, dialect: str | None = None, device: str | None = None
) -> Artifact:
    """The file that `Bundle.select` gives; of several engines for one precision, the last that was built for this machine.

    Where none was, it is the last of all: opening it tells how this machine differs, and what to type.

    Args:
        dialect: overrides the choice, as in `Bundle.select`.
        device: the device it is to run on; None is the engine's default.

    Raises:
        BundleError: the bundle has none.
        BackendUnavailableError: no runtime has that name.
    """
    adapter = find_runtime(backend)
    found = bundle.matching(backend, precision, dialect=dialect)
    if len(found) == 1:
        return found[0]
    return next((artifact for artifact in reversed(found) if not adapter.misfit(artifact, device)), found[-1])


def check_lineage(bundle: Bundle, program_sha256: str | None = None) -> None:
    """Refuses stale files: whatever was made from another file must be made from the one that lies in the bundle now.

    The fp32 ONNX file is where the bundle begins: it is made from the exported program, which the bundle does not hold.

    Args:
        program_sha256: digest of that program, where it is at hand.

    Raises:
        ParityError: naming the stale file.
    """
    artifacts = bundle.manifest.artifacts
    digests = {artifact.sha256 for artifact in artifacts}
    for artifact in artifacts:
        first = artifact.format == "onnx" and artifact.precision == "fp32"
        parents = ({program_sha256} if program_sha256 else None) if first else digests
        if artifact.made_from is not None and parents is not None and artifact.made_from not in parents:
            raise ParityError(
                f"{artifact.path} is stale: it was made from a file with sha256 {artifact.made_from[:16]}…, "
                f"{'which is not the program of this run' if first else 'and none in the bundle has that'}. Build again."
            )


def plan_checks(
    bundle: Bundle,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    *,
    device: str | None = None,
) -> tuple[list[PlannedCheck], list[SkippedCheck]]:
    """Every file to check, and the backends, and engines of other machines, that cannot be checked here.

    Args:
        backends: names; None takes all that the bundle serves on this architecture.
        precisions: None takes all; every dialect of a precision is checked.
        device: the device that they are to run on; None is each engine's default.

    Raises:
        BackendUnavailableError: a backend that was named is not installed, or all its engines (of a precision that was named)
            were built for other machines, or there is nothing left to check.
        BundleError: the bundle has nothing for a backend or precision that was named.
    """
    served = sorted({name for artifact in bundle.manifest.artifacts for name in artifact.serves})
    planned: list[PlannedCheck] = []
    skipped: list[SkippedCheck] = []
    for backend in served if backends is None else backends:
        if backends is not None:
            _check_served(bundle, backend, precisions)
        missing = _why_missing(backend)
        if missing and backends is not None:
            raise BackendUnavailableError(f"{backend} cannot be checked here: {missing}")
        wanted = [a for a in bundle.candidates(backend) if precisions is None or a.precision in precisions]
        if missing or not wanted:
            skipped.append(SkippedCheck(backend, missing or "the bundle has no such file for this machine's architecture"))
            continue
        adapter = find_runtime(backend)
        misfits = {artifact.path: adapter.misfit(artifact, device) for artifact in wanted}
        fitting = [artifact for artifact in wanted if not misfits[artifact.path]]
        foreign = [SkippedCheck(backend, misfit) for misfit in misfits.values() if misfit]
        if backends is not None:
            _check_fitting(backend, precisions, fitting, foreign)
        planned += [PlannedCheck(backend, artifact) for artifact in fitting]
        skipped += foreign
    if not planned:
        reasons = "; ".join(f"{skip.backend}: {skip.reason}" for skip in skipped) or "it serves no backend"
        raise BackendUnavailableError(f"Nothing of {bundle.root} can be checked on this machine. {reasons}")
    return planned, skipped


def _why_missing(backend: str) -> str:
    try:
        status = find_runtime(backend).status()
    except BackendUnavailableError as error:
        return str(error)
    return "" if status.installed else f"{status.reason} {status.extra}".strip()


def _check_fitting(
    backend: str, precisions: Sequence[str] | None, fitting: Sequence[Artifact], foreign: Sequence[SkippedCheck]
) -> None:
    """Of what was named something must be left to check; the rest is only told."""
    there = {artifact.precision for artifact in fitting}
    absent = [precision for precision in precisions or () if precision not in there]
    if absent or not there:
        reasons = "; ".join(skip.reason for skip in foreign)
        raise BackendUnavailableError(f"{' '.join([backend, *absent])} cannot be checked here: {reasons}")


def _check_served(bundle: Bundle, backend: str, precisions: Sequence[str] | None) -> None:
    for precision in precisions or ():
        bundle.select(backend, precision)
    if not bundle.candidates(backend):
        raise BundleError(f"{bundle.root} has nothing for {backend} on this machine's architecture.")
