"""Full int8 costs too much → some layers stay in float, until the upper bound of what int8 adds to the error is low enough.

One nested path leads from full int8 to float: the layers leave int8 one after the other, most harmful first, whatever the
bound. The choice is the first point of the path that meets it. Three things follow, whatever was measured, noise included:

* a looser bound is met no later on the path, so it leaves no more layers in float, and only such as a tighter one leaves too;
* nothing is searched for a bound, so the same layers and losses give the same choice;
* the number of networks that are tried grows with the logarithm of the number of layers.

A search that adds and prunes layers for each bound anew can end with fewer of them, but promises none of this. Measured times
decide nothing but whether the chosen point is fast enough: a point with fewer layers in float is the faster one, and neighbours
differ by less than the noise of a busy machine. Less loss is better. (NNCF's accuracy control takes it that more is better.)

All points are looked at on the same faces, so that the first that meets a bound owes a part of it to luck. What the file adds
on other faces is for the gates to say.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmedge.calibration.sensitivity import Make, NetworkLoss
from lmedge.calibration.stopwatch import Timing
from lmedge.errors import AccuracyError, CalibrationError
from lmedge.progress import Progress

if TYPE_CHECKING:
    import onnx

# Behind the first few points, each leaves a quarter more layers in float than the one before.
_GROWTH = 4


@dataclass(frozen=True)
class FloatPoint:
    """A network with some layers in float.

    Attributes:
        float_layers: most harmful first.
        loss: against the float network.
        timing: in turn with the float network.
        file_bytes: of the ONNX file.
    """

    float_layers: tuple[str, ...]
    loss: NetworkLoss
    timing: Timing
    file_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "float_layers": list(self.float_layers),
            "loss": self.loss.to_json(),
            **self.timing.to_json(),
            "file_bytes": self.file_bytes,
        }


@dataclass(frozen=True)
class BoundResult:
    """The points of the path that were tried, and the one that was chosen.

    Attributes:
        points: from full int8 on.
        chosen: the first that meets `max_nme_loss`; where none does, the one with the lowest upper bound.
        max_nme_loss: the most that int8 may add to the NME, a fraction, for the upper 95 % bound of the paired loss; or None.
        min_speedup: how much faster than the float network it must be; or None.
    """

    points: tuple[FloatPoint, ...]
    chosen: FloatPoint
    max_nme_loss: float | None
    min_speedup: float | None

    @property
    def accurate(self) -> bool:
        return is_accurate(self.chosen, self.max_nme_loss)

    @property
    def fast(self) -> bool:
        return is_fast(self.chosen, self.min_speedup)

    @property
    def met(self) -> bool:
        return self.accurate and self.fast

    @property
    def front(self) -> tuple[FloatPoint, ...]:
        """The points that no other one beats in both loss and time, or in one of them at no cost in the other."""
        return tuple(point for point in self.points if not any(_beats(other, point) for other in self.points))

    def require(self) -> None:
        """Raises when a bound does not hold.

        Raises:
            AccuracyError: with the best that was found, and the front.
        """
        if not self.met:
            raise AccuracyError(self.describe())

    def describe(self) -> str:
        """What was asked for, what was found, and the front, for people."""
        mark = "chosen" if self.met else "best found"
        lines = [f"Asked for {self._wishes()}; the path from int8 to float gives:"]
        lines += [f"  {_line(point)}{'  ← ' + mark if point is self.chosen else ''}" for point in self.points]
        return "\n".join(lines if self.met else [*lines, self._advice()])

    def to_json(self) -> dict[str, Any]:
        front = self.front
        rows = [{**p.to_json(), "chosen": p is self.chosen, "front": any(p is other for other in front)} for p in self.points]
        return {
            "max_nme_loss": self.max_nme_loss,
            "min_speedup": self.min_speedup,
            "met": self.met,
            "text": self.describe(),
            "points": rows,
        }

    def _wishes(self) -> str:
        loss = None if self.max_nme_loss is None else f"at most {100 * self.max_nme_loss:.3g} points of NME added"
        speed = None if self.min_speedup is None else f"{self.min_speedup:g} times the speed of fp32 or more"
        return " and ".join(wish for wish in (loss, speed) if wish)

    def _advice(self) -> str:
        if not self.accurate:
            return (
                "No point is that accurate by its upper bound, which is lower on more faces. A looser one can be met: "
                f"--max-nme-loss {100 * self.chosen.loss.added.upper:.3g}"
            )
        fast = [point for point in self.points if is_fast(point, self.min_speedup)]
        if fast:
            return (
                "Each can be had, not both: the most accurate that is fast enough adds up to "
                f"{100 * min(point.loss.added.upper for point in fast):.3g} points. Loosen one of the two."
            )
        return f"None is that fast here; the fastest is {max(p.timing.speedup for p in self.points):.2f} times as fast as fp32."


def leave_float(
    make: Make,
    layers: Iterable[str],
    measure: Callable[[onnx.ModelProto], NetworkLoss],
    latency: Callable[[onnx.ModelProto], Timing],
    *,
    max_nme_loss: float | None,
    min_speedup: float | None = None,
    whole_path: bool = False,
    progress: Progress | None = None,
) -> BoundResult:
    """Leaves layers in float, most harmful first, until the upper bound of the loss is at most `max_nme_loss`.

    Args:
        make: the float layers → the network.
        layers: most harmful first; read only where full int8 is not accurate enough, so that a generator may rank them then.
        measure: network → loss.
        latency: network → time beside the float network's.
        max_nme_loss: a fraction (0.0003 is 0.03 points); None leaves nothing in float.
        min_speedup: of the chosen point; it never changes the choice, since further points are slower.
        whole_path: also measure the points behind the chosen one, for a picture of all.
        progress: called with (points done, of at most, what is being done).

    Raises:
        CalibrationError: a bound below 0, or a speed-up that is not above 0.
    """
    if max_nme_loss is not None and not max_nme_loss >= 0:
        raise CalibrationError(f"max_nme_loss must be at least 0; got {max_nme_loss}.")
    if min_speedup is not None and not min_speedup > 0:
        raise CalibrationError(f"min_speedup must be above 0; got {min_speedup}.")
    points: list[FloatPoint] = []
    for point in _walk(make, layers, measure, latency, progress):
        points.append(point)
        if not whole_path and is_accurate(point, max_nme_loss):
            break
    accurate = (point for point in points if is_accurate(point, max_nme_loss))
    chosen = next(accurate, None) or min(points, key=lambda point: point.loss.added.upper)
    return BoundResult(tuple(points), chosen, max_nme_loss, min_speedup)


def is_accurate(point: FloatPoint, max_nme_loss: float | None) -> bool:
    """Whether the upper bound of what a network adds to the error is low enough; less is better."""
    return max_nme_loss is None or point.loss.added.upper <= max_nme_loss


def is_fast(point: FloatPoint, min_speedup: float | None) -> bool:
    return min_speedup is None or point.timing.speedup >= min_speedup


def path_sizes(layers: int) -> list[int]:
    """How many of the layers are in float at each point: 0, 1, 2, … one by one, later in growing steps, and all at the end."""
    steps = itertools.accumulate(itertools.repeat(0), lambda size, _: size + max(1, size // _GROWTH))
    return [*itertools.takewhile(lambda size: size < layers, steps), layers]


def _walk(
    make: Make,
    layers: Iterable[str],
    measure: Callable[[onnx.ModelProto], NetworkLoss],
    latency: Callable[[onnx.ModelProto], Timing],
    progress: Progress | None,
) -> Iterator[FloatPoint]:
    """The points of the path, each made when it is asked for."""
    model = make(frozenset())
    content = model.SerializeToString(deterministic=True)
    point = FloatPoint((), measure(model), latency(model), len(content))
    yield point
    ranked = tuple(layers)
    sizes = path_sizes(len(ranked))[1:]
    for done, size in enumerate(sizes, start=1):
        if progress:
            progress(done, len(sizes) + 1, "leaving layers in float")
        before, model = content, make(frozenset(ranked[:size]))
        content = model.SerializeToString(deterministic=True)
        if content == before:  # its neighbours' quantisers still stand around each of the new layers
            point = replace(point, float_layers=ranked[:size])
        else:
            point = FloatPoint(ranked[:size], measure(model), latency(model), len(content))
        yield point


def _beats(other: FloatPoint, point: FloatPoint) -> bool:
    # Times beside the float network's own: the points were measured one after the other, on a machine that does other things.
    ours, theirs = ((p.loss.added.upper, 1 / p.timing.speedup) for p in (other, point))
    return ours != theirs and all(mine <= its for mine, its in zip(ours, theirs, strict=True))


def _line(point: FloatPoint) -> str:
    added, timing = point.loss.added, point.timing
    return (
        f"{len(point.float_layers):3d} layers in float: adds {100 * added.nme:+.3f} points, at most {100 * added.upper:+.3f}; "
        f"{timing.latency_ms:.2f} ms, {timing.speedup:.2f} times as fast as fp32; {point.file_bytes / 1e6:.2f} MB"
    )
