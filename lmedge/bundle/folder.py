"""A bundle folder: opened, verified, selected from, written in one step."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmedge.bundle.artifact import ANY_ARCH, Artifact, check_digest, machine_arch
from lmedge.bundle.files import check_file, replace_folder, write_atomically
from lmedge.bundle.manifest import GOLDEN, MANIFEST, Manifest
from lmedge.bundle.zoo import resolve_bundle
from lmedge.errors import BundleError, BundleFormatError, LmedgeError
from lmedge.preprocess import REFERENCE, BoxFit

# Under this name the provenance lists the kinds of boxes whose fit was added after training.
ADDED_BOX_FITS = "added_box_fits"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle folder."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Opens a bundle folder, or a trained one of lmedge's own as ``zoo:NAME``; artifacts are checked when they are used,
        or all at once by `verify_digests`.

        Raises:
            BundleError: no manifest there.
            BundleFormatError: a manifest that cannot be used.
        """
        root = resolve_bundle(path)
        file = root / MANIFEST
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            inner = root / "bundle" / MANIFEST
            hint = f" Did you mean {inner.parent}?" if inner.is_file() else " Make one: lmedge build --target onnxruntime"
            raise BundleError(f"{root} is no bundle: it has no {MANIFEST}.{hint}") from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BundleFormatError(f"{file} cannot be read as JSON: {error}") from error
        return cls(root, Manifest.from_json(document, root))

    def verify_digests(self) -> int:
        """Checks every file that the manifest names; the number of files checked.

        Raises:
            DigestMismatchError: naming the first file that is missing or changed.
        """
        count = 0
        for artifact in self.manifest.artifacts:
            check_digest(artifact)
            count += 1 + len(artifact.companions)
        if self.manifest.golden is not None:
            check_file(self.root, GOLDEN, self.manifest.golden)
            count += 1
        return count

    def golden_file(self) -> Path:
        """The golden vectors, their digest checked.

        Raises:
            BundleError: this bundle has none.
            DigestMismatchError: they were changed.
        """
        if self.manifest.golden is None:
            raise BundleError(f"{self.root} has no golden vectors for the self-test. Build it again.")
        check_file(self.root, GOLDEN, self.manifest.golden)
        return self.root / GOLDEN

    def candidates(self, backend: str, arch: str | None = None) -> list[Artifact]:
        """The artifacts that serve a backend on an architecture (this machine's by default), in the manifest's order."""
        here = arch or machine_arch()
        return [a for a in self.manifest.artifacts if {here, ANY_ARCH} & set(a.serves.get(backend, ()))]

    def select(self, backend: str, precision: str = "fp32", *, dialect: str | None = None, arch: str | None = None) -> Artifact:
        """The artifact that answers `precision` on `backend` on this architecture: the last of `matching`.

        Which of several engines was built for this very machine only their runtime knows: `lmedge.runtimes.checks.select_here`.
        """
        return self.matching(backend, precision, dialect=dialect, arch=arch)[-1]

    def matching(
        self, backend: str, precision: str = "fp32", *, dialect: str | None = None, arch: str | None = None
    ) -> list[Artifact]:
        """The artifacts that answer `precision` on `backend`, at least one; the manifest's `serves` decides.

        They are in the manifest's order: packers write the more specific after the more general, so the last is to be taken.

        Args:
            dialect: overrides the choice ("" is the portable file, "x86" the unsigned one).
            arch: processor architecture, this machine's by default.

        Raises:
            BundleError: none does; the message lists what there is.
        """
        if dialect is None:
            fitting = [a for a in self.candidates(backend, arch) if a.precision == precision]
        else:
            fitting = [
                a for a in self.manifest.artifacts if (a.precision, a.dialect) == (precision, dialect) and backend in a.serves
            ]
        if not fitting:
            there = sorted({f"{name} {a.label}" for a in self.manifest.artifacts for name in a.serves})
            wanted = f"{precision} ({dialect})" if dialect else precision
            raise BundleError(
                f"{self.root} has no {wanted} for {backend} on {arch or machine_arch()}; "
                f"it has {', '.join(there) or 'nothing'}."
            )
        return fitting


def write_bundle(folder: Path, manifest: Manifest, golden: bytes | None = None) -> Bundle:
    """Writes a bundle folder in one step: an existing one is replaced when the new one is complete.

    Each artifact's files are copied from its `root`; the manifest is written last.

    Raises:
        LmedgeError: the disk is full or the folder cannot be written; an existing bundle is untouched.
        DigestMismatchError: a source file is not what its artifact says.
    """
    partial = folder.parent / f".{folder.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for artifact in manifest.artifacts:
            check_digest(artifact)
            for path in (artifact.path, *(name for name, _ in artifact.companions)):
                target = partial / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artifact.root / path, target)
        if golden is not None:
            write_atomically(partial / GOLDEN, golden)
            manifest = replace(manifest, golden=hashlib.sha256(golden).hexdigest())
        write_atomically(partial / MANIFEST, json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n")
        replace_folder(partial, folder)
    except OSError as error:
        raise LmedgeError(
            f"Cannot write the bundle {folder}: {error.strerror or error}. An existing bundle is untouched."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Bundle.open(folder)


def add_artifacts(bundle: Bundle, artifacts: Iterable[Artifact], parity: Sequence[Mapping[str, Any]] = ()) -> Bundle:
    """The bundle with further artifacts, whose files already lie inside it; an artifact of the same path is replaced, and moves
    to the end, where `select` looks first.

    Args:
        parity: reports for the manifest, in place of what it says of the same artifact, backend and reference.
    """
    added = {artifact.path: replace(artifact, root=bundle.root) for artifact in artifacts}
    kept = [artifact for artifact in bundle.manifest.artifacts if artifact.path not in added]
    judged = {_subject(report) for report in parity}
    reports = [*(report for report in bundle.manifest.parity if _subject(report) not in judged), *parity]
    return _rewritten(bundle, replace(bundle.manifest, artifacts=(*kept, *added.values()), parity=tuple(reports)))


def add_box_fit(bundle: Bundle, kind: str, fit: BoxFit, made: Mapping[str, Any]) -> Bundle:
    """The bundle with a fit for one more kind of box; its files and their digests stay as they are.

    `provenance["added_box_fits"][kind]` says that training did not make it. One that was added before is replaced.

    Args:
        kind: of the boxes.
        fit: how they map to the reference box.
        made: from what and by what the fit was made, for the provenance.

    Raises:
        BundleError: training made a fit for this kind, or it is the reference box itself.
        LmedgeError: the disk is full or the folder cannot be written.
    """
    manifest = bundle.manifest
    added = manifest.provenance.get(ADDED_BOX_FITS, {})
    if kind == REFERENCE or (kind in manifest.preprocess.box_fits and kind not in added):
        raise BundleError(f"{bundle.root} knows boxes of kind {kind!r} from its training; that is not replaced afterwards.")
    preprocess = replace(manifest.preprocess, box_fits={**manifest.preprocess.box_fits, kind: fit})
    provenance = {**manifest.provenance, ADDED_BOX_FITS: {**added, kind: dict(made)}}
    return _rewritten(bundle, replace(manifest, preprocess=preprocess, provenance=provenance))


def _rewritten(bundle: Bundle, manifest: Manifest) -> Bundle:
    write_atomically(bundle.root / MANIFEST, json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n")
    return Bundle.open(bundle.root)


def _subject(report: Mapping[str, Any]) -> tuple[Any, ...]:
    return report.get("artifact"), report.get("backend"), report.get("reference")
