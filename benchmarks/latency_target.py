"""Whether the default network is as fast and as exact as it has to be: pure arithmetic on what was measured and recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lmedge.bundle import Artifact, Manifest

# `predict` of the default int8 network, as a part of the yardstick's bare fp32 call on ONNX Runtime.
LIMIT_RATIO = 0.25
# What its NME may be above that of the most exact network that was judged on the same faces, in points (percent of NME).
LIMIT_POINTS = 0.1
MET, MISSED, UNDECIDED = "met", "not met", "undecided"

Interval = tuple[float, float]
# What two evaluations must have in common to be compared.
_SAME_FACES = ("schema", "mapping", "split", "count", "normalizer", "boxes")


def ratio_verdict(interval: Interval, limit: float = LIMIT_RATIO) -> str:
    """What the 95 % interval of a ratio says: "met" where all of it is within the limit, "not met" where none is."""
    low, high = interval
    if high <= limit:
        return MET
    return MISSED if low > limit else UNDECIDED  # an interval that is missing (NaN) decides nothing


def stated_report(manifest: Manifest, engine: str, artifact: Artifact) -> Mapping[str, Any] | None:
    """What the bundle records of an artifact's accuracy on an engine; None where it says nothing."""
    wanted = (engine, artifact.precision, artifact.dialect)
    reports = (manifest.evaluation or {}).get("reports", ())
    return next((one for one in reports if (one["backend"], one["precision"], one.get("dialect", "")) == wanted), None)


def added_points(report: Mapping[str, Any], manifests: Iterable[Manifest]) -> tuple[float, str]:
    """How far an evaluation is above the most exact one on the same faces, in points of NME, and whose that is.

    Only `manifests` are looked at; an evaluation of which they hold no like is compared with itself.
    """
    faces = _faces(report)
    others = [
        (float(one["nme"]), manifest.name)
        for manifest in manifests
        for one in (manifest.evaluation or {}).get("reports", ())
        if _faces(one) == faces
    ]
    best, name = min([*others, (float(report["nme"]), "itself")])
    return 100 * (float(report["nme"]) - best), name


def _faces(report: Mapping[str, Any]) -> tuple[Any, ...]:
    subsets = {name: entry["count"] for name, entry in report.get("subsets", {}).items()}
    return (*(report.get(key) for key in _SAME_FACES), subsets)
