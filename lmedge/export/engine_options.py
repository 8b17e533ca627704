"""How TensorRT engines are built: the choices of whoever compiles, checked."""

from __future__ import annotations

from dataclasses import dataclass

from lmedge.errors import InputError
from lmedge.runtimes.engine_record import BatchProfile, EngineRecord

# Not chosen but found: whether TensorRT took the types from the file.
STRONGLY_TYPED = "strongly_typed"

_WORKSPACE_MIB = 1024
_LEVELS = range(6)
_ONE = BatchProfile()


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built.

    Attributes:
        batch: the batch sizes an engine takes. The least is 1, since `FaceLandmarker` gives one face per call.
        workspace_mib: the most scratch memory on the GPU that a layer may use, in MiB.
        version_compatible: the engine runs on later TensorRT versions too. It then holds code for the host, which runs with the
            rights of the process that opens it: for engines from people you trust only.
        hardware_compatible: the engine runs on every GPU from Ampere on, and is slower than one for its own GPU.
        optimisation_level: 0 to 5, how long TensorRT looks for fast kernels; None leaves its default.

    Raises:
        InputError: a value out of its range.
    """

    batch: BatchProfile = _ONE
    workspace_mib: int = _WORKSPACE_MIB
    version_compatible: bool = False
    hardware_compatible: bool = False
    optimisation_level: int | None = None

    def __post_init__(self) -> None:
        if self.batch.least != 1:
            raise InputError(f"The least batch of an engine must be 1, since one face is one call; got {self.batch}.")
        if self.workspace_mib < 1:
            raise InputError(f"The workspace must be at least 1 MiB; got {self.workspace_mib}.")
        if self.optimisation_level is not None and self.optimisation_level not in _LEVELS:
            raise InputError(f"The optimisation level must be 0 to {_LEVELS[-1]}; got {self.optimisation_level}.")

    @property
    def recorded(self) -> dict[str, str | int | bool]:
        """What the record of an engine says beside its fields of their own."""
        level = self.optimisation_level
        chosen = {} if level is None else {"optimisation_level": level}
        return {"workspace_mib": self.workspace_mib, "tf32": False, **chosen}

    def made(self, record: EngineRecord) -> bool:
        """Whether an engine was built with these options."""
        theirs = {name: value for name, value in record.options.items() if name != STRONGLY_TYPED}
        flags = (record.version_compatible, record.hardware_compatible)
        return (record.profile, theirs, flags) == (
            self.batch,
            self.recorded,
            (self.version_compatible, self.hardware_compatible),
        )


def parse_batch(text: str) -> BatchProfile:
    """ "1:8:32" → at least 1, usually 8, at most 32.

    Raises:
        InputError: anything else than three rising numbers.
    """
    parts = text.split(":")
    try:
        least, usual, most = map(int, parts)
        return BatchProfile(least, usual, most)
    except ValueError as error:
        raise InputError(
            f"A batch range is LEAST:USUAL:MOST, three numbers that rise from 1, e.g. --batch 1:8:32; got {text!r}."
        ) from error
