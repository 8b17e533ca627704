"""What a stage was made from, and whether that still holds: content hashes in `lock.json`.

A stage's key is a flat table of components: the sha256 of every input file, each option, the version of each tool it
calls, and for engines the device. A stage is skipped when every component and every output is what the lock says;
otherwise the first difference is the reason that people see.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lmedge import __version__
from lmedge.bundle import file_digest, write_atomically

LOCK = "lock.json"
_FORMAT_VERSION = 1

Components = dict[str, str]


@dataclass(frozen=True)
class StageRecord:
    """What the lock keeps of a finished stage: its key, and its files with their sha256."""

    components: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass
class Lock:
    """The records of all stages of one run folder, and a cache of file digests.

    A digest is reused only while size, modification and change time and inode stay: every write moves the change time.
    """

    folder: Path
    records: dict[str, StageRecord] = field(default_factory=dict)
    digests: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Lock:
        """The lock of a run folder; one that cannot be read counts as empty, so everything is made again."""
        try:
            document = json.loads((folder / LOCK).read_text(encoding="utf-8"))
            if document["format_version"] != _FORMAT_VERSION:
                return cls(folder)
            records = {name: StageRecord(entry["components"], entry["outputs"]) for name, entry in document["stages"].items()}
            return cls(folder, records, document["digests"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(folder)

    def write(self) -> None:
        document = {
            "format_version": _FORMAT_VERSION,
            "stages": {
                name: {"components": dict(record.components), "outputs": dict(record.outputs)}
                for name, record in self.records.items()
            },
            "digests": self.digests,
        }
        write_atomically(self.folder / LOCK, json.dumps(document, indent=1) + "\n")

    def digest(self, path: Path) -> str:
        """The sha256 of a file's bytes.

        Raises:
            OSError: it cannot be read.
        """
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        key = str(path.resolve())
        known = self.digests.get(key)
        if known is None or known[1:] != state:
            self.digests[key] = known = [file_digest(path), *state]
        return str(known[0])

    def record(self, stage: str, components: Components, outputs: Iterable[Path]) -> None:
        """Notes a finished stage, with outputs relative to the run folder, and writes the lock."""
        files = {path.relative_to(self.folder).as_posix(): self.digest(path) for path in sorted(outputs)}
        self.records[stage] = StageRecord(components, files)
        self.write()

    def reason_to_run(self, stage: str, components: Components) -> str | None:
        """Why a stage has to run, or None when it can be skipped."""
        known = self.records.get(stage)
        if known is None:
            return "it has not run yet"
        difference = first_difference(known.components, components)
        if difference:
            return difference
        for path, sha256 in known.outputs.items():
            try:
                if self.digest(self.folder / path) != sha256:
                    return f"its output {path} was changed"
            except OSError:
                return f"its output {path} is gone"
        return None


def first_difference(old: Mapping[str, str], new: Mapping[str, str]) -> str | None:
    """The first component that differs, in words, or None."""
    for name in [*new, *(name for name in old if name not in new)]:
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if before is None:
            return f"{name} is new"
        if now is None:
            return f"{name} is gone"
        if name.startswith("input "):
            return f"{name} has other bytes"
        return f"{name} was {before}, is {now}"
    return None


def option_components(options: Mapping[str, Any]) -> Components:
    """Options as components, one per leaf, in canonical JSON."""
    components: Components = {}
    for name, value in options.items():
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        if isinstance(plain, dict) and plain:
            nested = option_components({f"{name}.{key}": inner for key, inner in sorted(plain.items())})
            components |= nested
        else:
            label = name if name.startswith("option ") else f"option {name}"
            components[label] = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return components


def tool_components(distributions: Iterable[str]) -> Components:
    """Installed versions of the tools that a stage calls; "absent" where one is not installed."""
    return {f"tool {name}": tool_version(name) for name in distributions}


def tool_version(distribution: str) -> str:
    if distribution == "lmedge":
        return __version__  # also where the package runs from its sources
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
