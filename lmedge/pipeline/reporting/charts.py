"""Charts of the build report: inline SVG whose colours are CSS variables of the page, so that they follow light and dark.

The same numbers give the same text: no dates, no random ids, fonts left to the page.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.metrics import ced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What matplotlib draws with → what the page shows.
INK, FAINT = "#00000a", "#00000b"
SERIES = ("#00000c", "#00000d", "#00000e")
CSS_COLORS = {INK: "currentColor", FAINT: "var(--line)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)
}
# Curves of engines that agree lie on each other: the first is broad and pale, the later ones thin and broken.
STROKES = (
    {"linewidth": 5.0, "alpha": 0.35},
    {"linewidth": 1.8, "linestyle": (0, (6, 3))},
    {"linewidth": 1.8, "linestyle": (0, (1.5, 1.5))},
)

CED_SHOWN = 0.10
_CED_MOST, _CED_STEPS = 0.5, 201
_MARKED_EPOCHS = 30
# A p99 beyond so many times the slowest median leaves the picture: on a busy machine bars would be too short to compare.
_TAIL_SHOWN = 2.0
_HEADROOM = 1.15
_SIZE_IN = (6.4, 3.3)
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "grid.color": FAINT,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def ced_svg(errors: Mapping[str, npt.NDArray[np.float64]]) -> str:
    """Cumulative error distributions, one curve per name (three at most), up to NME 10 % or what 98 % of faces reach.

    Args:
        errors: name → NME per face (N,), fractions; NaN where a face has none.
    """
    reached = max(float(np.nanquantile(values, 0.98)) for values in errors.values())
    most = CED_SHOWN if reached <= CED_SHOWN else min(_CED_MOST, math.ceil(reached * 20) / 20)
    thresholds = np.linspace(0, most, _CED_STEPS)
    with _figure("ced", 1) as (figure, (axes,)):
        for (name, values), color, stroke in zip(errors.items(), SERIES, STROKES, strict=False):
            axes.plot(
                100 * thresholds, 100 * ced(values, thresholds), color=color, label=name, drawstyle="steps-post", **stroke
            )  # type: ignore[arg-type]
        axes.set(
            xlim=(0, 100 * most), ylim=(0, 102), xlabel="NME, % of the normaliser", ylabel="faces with at most this NME, %"
        )
        axes.legend(loc="lower right" if most <= CED_SHOWN else "best")
        return _svg(figure, "ced")


def training_svg(history: Sequence[Mapping[str, Any]], best_epoch: int, loss: str) -> str:
    """Loss and validation NME by epoch, side by side; the epoch that was kept is marked.

    Args:
        history: rows with `epoch` (from 0), `loss` and `validation_nme`.
        best_epoch: of the checkpoint that was exported.
        loss: the name of the loss.
    """
    epochs = np.array([row["epoch"] + 1 for row in history])
    losses = np.array([_number(row["loss"]) for row in history])
    errors = 100 * np.array([_number(row["validation_nme"]) for row in history])
    marker = "o" if len(epochs) <= _MARKED_EPOCHS else ""
    with _figure("training", 2) as (figure, (left, right)):
        from matplotlib.ticker import MaxNLocator

        left.plot(epochs, losses, color=SERIES[0], linewidth=1.8, marker=marker, markersize=4)
        right.plot(epochs, errors, color=SERIES[0], linewidth=1.8, marker=marker, markersize=4)
        kept = epochs == best_epoch + 1
        right.plot(epochs[kept], errors[kept], color=SERIES[1], marker="o", markersize=8, linestyle="", label="kept")
        left.set(title=f"Training loss ({loss})", xlabel="epoch")
        right.set(title="Validation NME, %", xlabel="epoch")
        for axes, values in ((left, losses), (right, errors)):
            axes.set_ylim(0, _HEADROOM * float(np.nanmax(values)) or 1)
            axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend(loc="upper right")
        return _svg(figure, "training")


def confidence_svg(report: Mapping[str, Any]) -> str:
    """Whether points are as often near their place as the network says, and how the error falls when uncertain points are
    left out.

    Args:
        report: a `ConfidenceReport` as plain data.
    """
    said, near = (100 * np.array([_number(row[column]) for row in report["bins"]]) for column in (0, 1))
    kept, best = 100 * np.array(report["retained"]), 100 * np.array(report["best_errors"])
    with _figure("confidence", 2) as (figure, (left, right)):
        left.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        left.plot(said, near, color=SERIES[0], linewidth=1.8, marker="o", markersize=5)
        left.set(title="Points that are near, %", xlim=(0, 102), ylim=(0, 102))
        left.set(xlabel="mean confidence of a tenth of all points, %")
        right.plot(kept, 100 * np.array(report["errors"]), color=SERIES[0], linewidth=1.8, label="most certain first")
        right.plot(kept, best, color=SERIES[1], linewidth=1.8, linestyle=(0, (6, 3)), label="smallest error first")
        right.set(title="Mean error of the points that are kept, %", xlabel="points kept, %", xlim=(100, kept.min()))
        right.set_ylim(bottom=0)
        right.legend(loc="best")
        return _svg(figure, "confidence")


def layers_svg(layers: Sequence[Mapping[str, Any]], name: str) -> str:
    """How much of int8's rounding error each layer makes, as bars, most harmful first.

    Args:
        layers: rows with `layer`, `what` and `part`, as `LayerTable.layers` holds them.
        name: of the picture, unlike that of any other on the page.
    """
    parts = 100 * np.array([_number(layer["part"]) for layer in layers])
    shown = np.where(np.isfinite(parts), parts, np.nan)
    places = np.arange(len(layers))
    with _figure(name, 1, height=0.9 + 0.24 * len(layers)) as (figure, (axes,)):
        axes.barh(places, np.nan_to_num(shown), color=SERIES[0], height=0.7)
        axes.set_yticks(
            places, [f"{layer['what'] or layer['layer']}  ·  {number}" for number, layer in enumerate(layers, start=1)]
        )
        axes.invert_yaxis()
        axes.set_xlim(0, _HEADROOM * float(np.nanmax(shown, initial=0)) or 1)
        axes.set_xlabel("squared error with this layer alone in int8, % of full int8's")
        axes.grid(axis="y", visible=False)
        return _svg(figure, name)


def latency_svg(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """What one face takes on each engine: the median of the bare engine call, what `predict` adds, and a line up to its p99.

    Args:
        rows: with `p50_ms`, `p99_ms` and `engine_p50_ms`; names: one for each.
    """
    p50, p99, engine = (np.array([row[key] for row in rows]) for key in ("p50_ms", "p99_ms", "engine_p50_ms"))
    places = np.arange(len(rows))
    with _figure("latency", 1, height=1.1 + 0.3 * len(rows)) as (figure, (axes,)):
        axes.barh(places, engine, color=SERIES[0], height=0.6, label="engine")
        axes.barh(places, np.maximum(p50 - engine, 0), left=engine, color=SERIES[1], height=0.6, label="crop, checks, points")
        axes.hlines(places, p50, p99, color=INK, linewidth=0.8, label="up to p99")
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlim(0, _HEADROOM * min(float(p99.max()), _TAIL_SHOWN * float(p50.max())))
        axes.set_xlabel("one face, ms")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="best")
        return _svg(figure, "latency")


def front_svg(points: Sequence[Mapping[str, Any]], max_nme_loss: float | None, min_speedup: float | None, name: str) -> str:
    """What int8 adds to the error against its time, for each point of the path from int8 to float.

    Args:
        points: rows of `BoundResult.to_json`, in the order of the path.
        max_nme_loss, min_speedup: what was asked for, or None.
        name: of the picture, unlike that of any other on the page.
    """
    times = np.array([100 / point["speedup"] for point in points])
    losses = np.array([[_number(point["loss"]["added"][key]) for key in ("upper", "nme")] for point in points])
    upper, mean = 100 * np.where(np.isfinite(losses), losses, np.nan).T
    with _figure(name, 1) as (figure, (axes,)):
        front = np.array([point["front"] for point in points]) & np.isfinite(upper)
        order = np.argsort(times[front], kind="stable")
        axes.plot(
            times[front][order], upper[front][order], color=SERIES[0], linewidth=1.2, drawstyle="steps-post", label="front"
        )
        axes.plot(times, upper, color=SERIES[0], marker="o", markersize=5, linestyle="", label="upper 95 % bound")
        axes.plot(times, mean, color=SERIES[2], marker=".", linestyle="", label="mean")
        for point, time, value in zip(points, times, upper, strict=True):
            if math.isfinite(value):
                text = str(len(point["float_layers"]))
                axes.annotate(text, (time, value), xytext=(4, 5), textcoords="offset points", fontsize=8)
        chosen = [point["chosen"] for point in points]
        axes.plot(times[chosen], upper[chosen], color=SERIES[1], marker="o", markersize=10, linestyle="", label="chosen")
        if max_nme_loss is not None:
            axes.axhline(100 * max_nme_loss, color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        if min_speedup is not None:
            axes.axvline(100 / min_speedup, color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        axes.set(xlabel="time, % of fp32's", ylabel="NME added, points of %")
        axes.legend(loc="best")
        return _svg(figure, name)


@contextmanager
def _figure(name: str, columns: int, height: float = _SIZE_IN[1]) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a row of axes, under the style of this module alone; a user's matplotlibrc does not count."""
    with _quiet_matplotlib():
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": name}
            matplotlib.rcParams.update(style)
            figure = Figure(figsize=(_SIZE_IN[0] * (1 + 0.6 * (columns - 1)), height), layout="constrained")
            row = figure.subplots(1, columns, squeeze=False)[0]
            for axes in row:
                axes.grid(linewidth=0.6)
                axes.set_axisbelow(True)
            yield figure, list(row)


@contextmanager
def _quiet_matplotlib() -> Iterator[None]:
    """Without its notes about the font cache and its folder, which say nothing to who builds a bundle."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element to put into HTML."""
    buffer = io.StringIO()
    keys = ("Date", "Creator", "Format", "Type")
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(keys), transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # A style element would hold for the whole page, which says the same for its charts alone.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", text)
    # HTML knows both namespaces.
    text = re.sub(r'\sxmlns(?::xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    # Ids must be unique in the page, not only in the picture.
    text = re.sub(r'\bid="', f'id="{name}-', text).replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for drawn, shown in CSS_COLORS.items():
        text = text.replace(drawn, shown)
    return text.strip()


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
