"""What goes into a bundle: which files of a run, under which names, serving which engines, and the manifest around them.

Only what was checked is served: an engine is named in `serves` when its parity gates held for that file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmedge.bundle import ANY_ARCH, Artifact, network_specs
from lmedge.preprocess import PreprocessSpec
from lmedge.reports import ParityReport
from lmedge.schemas import LandmarkSchema

X86_DIALECT = "x86"
PHOTO_DIGITS = 16
CPU_ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Variant:
    """One precision of a network.

    Attributes:
        precision, dialect: as in the manifest; `stem` is its file name without suffix.
        archs: the architectures it is meant for.
        engines: those that may serve it as it is. TensorRT serves none: it builds an engine file of its own from one.
        parent: precision of the file that it is made from; "" for the exported program.
    """

    precision: str
    dialect: str = ""
    archs: tuple[str, ...] = (ANY_ARCH,)
    engines: tuple[str, ...] = CPU_ENGINES
    parent: str = "fp32"

    @property
    def stem(self) -> str:
        return f"model.{self.precision}" + (f"-{self.dialect}" if self.dialect else "")


# In this order in the manifest: of several that serve an engine, the last is selected.
VARIANTS = (
    Variant("fp32", parent=""),
    Variant("fp16"),
    Variant("int8"),
    Variant("int8", X86_DIALECT, ("x86_64",)),
    Variant("fp16-int8", engines=(), parent="int8"),
)
OPENVINO_VARIANTS = tuple(variant for variant in VARIANTS if "openvino" in variant.engines)


def onnx_name(variant: Variant) -> str:
    return f"{variant.stem}.onnx"


def ir_name(variant: Variant) -> str:
    return f"openvino/{variant.stem}.xml"


def list_artifacts(
    onnx_folders: Mapping[str, Path],
    ir_folder: Path | None,
    *,
    targets: Sequence[str],
    spec: PreprocessSpec,
    schema: LandmarkSchema,
    confidence: bool,
    program_sha256: str,
    tool_versions: Mapping[str, str],
) -> list[Artifact]:
    """The files of a run as artifacts, each with the engines it is meant to serve.

    Args:
        onnx_folders: precision → the folder that holds its ONNX files.
        ir_folder: the folder with `openvino/`, or None when there is none: then OpenVINO, where it is a target, reads the ONNX
            files.
        confidence: whether the network says how sure it is.
        program_sha256: of the exported program, which the fp32 file was made from.
    """
    inputs, outputs = network_specs(spec, schema, confidence=confidence)
    artifacts: list[Artifact] = []
    sha256s = {"": program_sha256}
    for variant in VARIANTS:
        root = onnx_folders[variant.precision]
        if not variant.engines and not (root / onnx_name(variant)).exists():
            continue  # left out where it was made, with the reason
        readers = ("onnxruntime",) if ir_folder is not None else CPU_ENGINES
        serves = {engine: variant.archs for engine in readers if engine in targets and engine in variant.engines}
        artifact = Artifact.of_file(
            root / onnx_name(variant),
            root,
            format="onnx",
            precision=variant.precision,
            dialect=variant.dialect,
            inputs=inputs,
            outputs=outputs,
            made_from=sha256s[variant.parent],
            tool_versions=tool_versions,
            serves=serves,
        )
        sha256s.setdefault(variant.precision, artifact.sha256)
        artifacts.append(artifact)
    if ir_folder is not None:
        parents = {(artifact.precision, artifact.dialect): artifact for artifact in artifacts}
        artifacts += [
            _ir_artifact(ir_folder, variant, parents[variant.precision, variant.dialect]) for variant in OPENVINO_VARIANTS
        ]
    return artifacts


def keep_passing(artifacts: Iterable[Artifact], parity: Iterable[ParityReport]) -> list[Artifact]:
    """The artifacts without the engines of which a gate failed or none was checked; a file that failed everywhere is left out.

    A file that is meant for no engine stays where others in the bundle were made from it; else only where what it was made
    from, or another file made of that, passed or was not measured either. An ONNX file whose parent was left out stays too and
    names none: what it was made from cannot be checked there.
    """
    reports = list(parity)
    failed = {(report.artifact, report.backend) for report in reports if not report.passed}
    passed = {(report.artifact, report.backend) for report in reports} - failed
    every, kept = list(artifacts), []
    for artifact in every:
        serves = {backend: archs for backend, archs in artifact.serves.items() if (artifact.path, backend) in passed}
        if serves or not artifact.serves:
            kept.append(replace(artifact, serves=serves))
    present = {artifact.sha256 for artifact in kept}
    left_out = {artifact.sha256 for artifact in every} - present
    whole = [artifact for artifact in kept if artifact.format == "onnx" or artifact.made_from in present]
    vouched = [artifact for artifact in whole if artifact.serves or _is_vouched_for(artifact, every, whole)]
    return [replace(artifact, made_from=None) if artifact.made_from in left_out else artifact for artifact in vouched]


def photo_digest(photo_key: str) -> str:
    """How a manifest names a training photo: enough to recognise it, without its name."""
    return hashlib.sha256(photo_key.encode()).hexdigest()[:PHOTO_DIGITS]


def _is_vouched_for(unmeasured: Artifact, every: Sequence[Artifact], kept: Sequence[Artifact]) -> bool:
    """Whether a file without an engine may stay."""
    if unmeasured.made_from is None or any(artifact.made_from == unmeasured.sha256 for artifact in every):
        return True
    measured = {a.path for a in every if a.serves and unmeasured.made_from in (a.sha256, a.made_from)}
    return not measured or any(artifact.serves for artifact in kept if artifact.path in measured)


def _ir_artifact(ir_folder: Path, variant: Variant, parent: Artifact) -> Artifact:
    file = ir_folder / ir_name(variant)
    return Artifact.of_file(
        file,
        ir_folder,
        [file.with_suffix(".bin")],
        format="openvino",
        precision=variant.precision,
        dialect=variant.dialect,
        inputs=parent.inputs,
        outputs=parent.outputs,
        made_from=parent.sha256,
        tool_versions=parent.tool_versions,
        serves={"openvino": variant.archs},
    )
