"""Classes that behave as pybind11 makes them, with exactly the names that a version of TensorRT has.

An attribute that the version lacks is an AttributeError, so `hasattr` answers as on the real thing. One that the version has
and the fake does not play is `NotPlayed`, which no `hasattr` and no `except Exception` hides. Nothing can be set that is not
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.tensorrt import api_names
from tests.tensorrt.api_values import values
from tests.tensorrt.fake_gpu import FakeGpu, NotPlayed


class PybindType(type):
    """A class of the module `tensorrt`."""

    def __getattr__(cls, name: str) -> Any:
        raise missing(cls, name)


class Played:
    """What the classes that play TensorRT's have in common; `expose` gives it to them.

    Attributes:
        _trt: the module they are in.
        _gpu: the machine they run on.
        _version: one of `api_names.VERSIONS`.
    """

    _trt: Any
    _gpu: FakeGpu
    _version: str


def missing(cls: type, name: str) -> BaseException:
    """What asking for a name that is not played ends with."""
    kind: str = getattr(cls, "_kind", cls.__name__) if name != "_kind" else cls.__name__
    if not name.startswith("_") and name in api_names.members(getattr(cls, "_version", ""), kind):
        return NotPlayed(f"tensorrt.{kind}.{name}")
    return AttributeError(f"type object 'tensorrt.tensorrt.{kind}' has no attribute {name!r}")


def expose(version: str, kind: str, played: type, **shared: Any) -> PybindType:
    """The class `kind` of a version: the methods of `played` by the names that this version has."""
    names = api_names.members(version, kind)
    hidden = {k: v for k, v in vars(played).items() if k.startswith("_") and k not in ("__dict__", "__weakref__")}
    public = {k: v for k, v in vars(played).items() if k in names}
    body: dict[str, Any] = {"_sealed": True, **shared, **hidden, **public, "_kind": kind, "_version": version}
    body["__getattr__"] = lambda self, name: _raise(missing(type(self), name))
    if body["_sealed"]:
        body["__setattr__"] = _set_known
    if "__init__" not in body:
        body["__init__"] = _no_constructor
    return PybindType(kind, (), body)


def make(cls: type, *arguments: Any) -> Any:
    """An object of a class that only the library makes."""
    made: Any = object.__new__(cls)
    made._start(*arguments)
    return made


def _raise(error: BaseException) -> None:
    raise error


def _set_known(self: Any, name: str, value: Any) -> None:
    known = getattr(type(self), name, None) if not name.startswith("_") else None
    if not name.startswith("_") and not (isinstance(known, property) and known.fset):
        raise AttributeError(f"can't set attribute {name!r} of {type(self).__name__}")
    object.__setattr__(self, name, value)


def _no_constructor(self: Any, *_: Any) -> None:
    raise TypeError(f"tensorrt.tensorrt.{type(self).__name__}: No constructor defined!")


class _EnumerationType(type):
    """Made by `enumeration`: it has `__members__`, and is no iterable."""

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(f"type object 'tensorrt.tensorrt.{cls.__name__}' has no attribute {name!r}")


class Enumeration(metaclass=_EnumerationType):
    """A value of one of TensorRT's enumerations: equal to itself only, no number until `int()` makes it one."""

    __members__: dict[str, Any]

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def name(self) -> str:
        return next((name for name, member in type(self).__members__.items() if member.value == self.value), "???")

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Enumeration) and type(self) is type(other) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def enumeration(name: str, members: dict[str, int]) -> Any:
    """An enumeration with these members as attributes."""
    made: Any = _EnumerationType(name, (Enumeration,), {"__members__": {}})
    for member, value in members.items():
        setattr(made, member, made(value))
        made.__members__[member] = getattr(made, member)
    return made


def enumeration_of(version: str, name: str) -> Any:
    """An enumeration as a version has it."""
    return enumeration(name, values(version, name))


class Dims:
    """A shape: comparable with tuples and lists, and neither."""

    def __init__(self, sizes: Any = ()) -> None:
        self._sizes = tuple(int(size) for size in sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        return Dims(self._sizes[index]) if isinstance(index, slice) else self._sizes[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._sizes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (tuple, list)):
            raise TypeError("__eq__(): incompatible function arguments. 1. (arg0: list) -> bool 2. (arg0: tuple) -> bool")
        return self._sizes == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._sizes)


class HostMemory(bytearray):
    """Bytes that the library owns: `bytes()`, `memoryview()` and files take it; it is no sequence, and has no length."""

    _kind = "IHostMemory"
    __len__ = None  # type: ignore[assignment]
    __getitem__ = None  # type: ignore[assignment]
    __iter__ = None  # type: ignore[assignment]
    __contains__ = None  # type: ignore[assignment]
    __add__ = None  # type: ignore[assignment]
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return True

    @property
    def nbytes(self) -> int:
        return memoryview(self).nbytes

    @property
    def dtype(self) -> Any:
        raise NotPlayed("tensorrt.IHostMemory.dtype")

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in ("nbytes", "dtype"):
            raise AttributeError(f"'tensorrt.tensorrt.IHostMemory' object has no attribute {name!r}")
        return super().__getattribute__(name)
