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


@contextmanager
def _figure(name: str, columns: int) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a row of axes, under the style of this module alone; a user's matplotlibrc does not count."""
    with _quiet_matplotlib():
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": name}
            matplotlib.rcParams.update(style)
            figure = Figure(figsize=(_SIZE_IN[0] * (1 + 0.6 * (columns - 1)), _SIZE_IN[1]), layout="constrained")
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
