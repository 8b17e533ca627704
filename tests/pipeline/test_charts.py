"""Charts of the report: they say what was measured, follow the page's colours, and bother nobody."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmedge.pipeline.charts import ced_svg, training_svg
from tests.requirements import require

require("matplotlib")

HISTORY = [{"epoch": e, "loss": 10.0 / (e + 1), "validation_nme": 0.2 / (e + 1) + 0.03} for e in range(5)]
FACES = {"fp32": np.linspace(0.02, 0.09, 40), "int8": np.linspace(0.02, 0.1, 40)}


@pytest.fixture(scope="module")
def charts() -> list[str]:
    return [ced_svg(FACES), training_svg(HISTORY, 4, "wing")]


def test_colours_are_those_of_the_page(charts: list[str]) -> None:
    for chart in charts:
        assert "currentColor" in chart
        assert "var(--series-1)" in chart
        assert not re.findall(r"#[0-9a-f]{6}\b", chart)


def test_a_chart_brings_no_style_address_or_date(charts: list[str]) -> None:
    for chart in charts:
        assert not re.search(r"<style|https?:|<metadata|<!DOCTYPE|20\d\d-", chart)


def test_the_same_numbers_give_the_same_chart(charts: list[str]) -> None:
    assert [ced_svg(FACES), training_svg(HISTORY, 4, "wing")] == charts


def test_other_numbers_give_another_chart(charts: list[str]) -> None:
    assert ced_svg({**FACES, "int8": FACES["int8"] / 2}) != charts[0]
    assert training_svg(HISTORY, 3, "wing") != charts[1]


@pytest.mark.parametrize(("worst", "last_tick"), [(0.09, "10"), (0.32, "35"), (4.0, "50")])
def test_the_error_axis_reaches_what_most_faces_need_and_at_least_ten_percent(worst: float, last_tick: str) -> None:
    svg = ced_svg({"fp32": np.full(50, worst)})
    ticks = [float(text) for text in re.findall(r"<text[^>]*>(\d+)</text>", svg)]
    assert float(last_tick) in ticks


def test_faces_without_an_error_and_epochs_without_one_are_left_out() -> None:
    assert "<svg" in ced_svg({"fp32": np.array([0.05, np.nan, 0.06])})
    assert "<svg" in training_svg([*HISTORY[:1], {"epoch": 1, "loss": 3.0, "validation_nme": None}], 0, "l2")


def test_a_user_s_own_matplotlib_settings_do_not_count(charts: list[str]) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert ced_svg(FACES) == charts[0]
        assert matplotlib.rcParams["font.size"] == 30


def test_the_first_chart_of_a_machine_prints_nothing(tmp_path: Path) -> None:
    code = "import numpy as np; from lmedge.pipeline.charts import ced_svg; ced_svg({'a': np.array([0.05])})"
    # A folder without a font cache, which matplotlib announces that it builds.
    environment = {"MPLCONFIGDIR": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout + done.stderr == ""
