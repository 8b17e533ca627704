"""Charts of the report: they say what was measured, follow the page's colours, and bother nobody."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmedge.pipeline.reporting.charts import ced_svg, front_svg, latency_svg, layers_svg, training_svg
from tests.requirements import require

require("matplotlib")

HISTORY = [{"epoch": e, "loss": 10.0 / (e + 1), "validation_nme": 0.2 / (e + 1) + 0.03} for e in range(5)]
LAYERS = [{"layer": f"conv_{n}", "what": "1×1 convolution, 8 → 16", "part": 0.5**n} for n in range(20)]
POINTS = [
    {
        "float_layers": ["a"] * count,
        "loss": {"added": {"nme": 1e-4 * 0.6**count, "upper": 3e-4 * 0.6**count}},
        "speedup": 1.5 / (1 + 0.05 * count),
        "chosen": count == 2,
        "front": count != 4,
    }
    for count in range(6)
]
TIMES = [{"p50_ms": p50, "p99_ms": 1.3 * p50, "engine_p50_ms": 0.8 * p50} for p50 in (2.0, 1.0)]
FACES = {"fp32": np.linspace(0.02, 0.09, 40), "int8": np.linspace(0.02, 0.1, 40)}


@pytest.fixture(scope="module")
def charts() -> list[str]:
    return [
        ced_svg(FACES),
        training_svg(HISTORY, 4, "wing"),
        layers_svg(LAYERS, "layers-x86"),
        front_svg(POINTS, 2e-4, 1.2, "front-x86"),
        latency_svg(TIMES, ["fp32", "int8"]),
    ]


def test_colours_are_those_of_the_page(charts: list[str]) -> None:
    for chart in charts:
        assert "currentColor" in chart
        assert "var(--series-1)" in chart
        assert not re.findall(r"#[0-9a-f]{6}\b", chart)


def test_a_chart_brings_no_style_address_or_date(charts: list[str]) -> None:
    for chart in charts:
        assert not re.search(r"<style|https?:|<metadata|<!DOCTYPE|20\d\d-", chart)


def test_the_same_numbers_give_the_same_chart(charts: list[str]) -> None:
    assert [ced_svg(FACES), training_svg(HISTORY, 4, "wing")] == charts[:2]
    assert [layers_svg(LAYERS, "layers-x86"), front_svg(POINTS, 2e-4, 1.2, "front-x86")] == charts[2:4]
    assert latency_svg(TIMES, ["fp32", "int8"]) == charts[4]


def test_other_numbers_give_another_chart(charts: list[str]) -> None:
    assert ced_svg({**FACES, "int8": FACES["int8"] / 2}) != charts[0]
    assert training_svg(HISTORY, 3, "wing") != charts[1]
    assert layers_svg(LAYERS[::-1], "layers-x86") != charts[2]
    assert front_svg(POINTS, 2e-4, None, "front-x86") != charts[3]
    assert front_svg([{**point, "front": True} for point in POINTS], 2e-4, 1.2, "front-x86") != charts[3]
    assert front_svg([{**point, "chosen": False} for point in POINTS], 2e-4, 1.2, "front-x86") != charts[3]


@pytest.mark.parametrize(("worst", "last_tick"), [(0.09, "10"), (0.32, "35"), (4.0, "50")])
def test_the_error_axis_reaches_what_most_faces_need_and_at_least_ten_percent(worst: float, last_tick: str) -> None:
    svg = ced_svg({"fp32": np.full(50, worst)})
    ticks = [float(text) for text in re.findall(r"<text[^>]*>(\d+)</text>", svg)]
    assert float(last_tick) in ticks


def test_faces_without_an_error_and_epochs_without_one_are_left_out() -> None:
    assert "<svg" in ced_svg({"fp32": np.array([0.05, np.nan, 0.06])})
    assert "<svg" in training_svg([*HISTORY[:1], {"epoch": 1, "loss": 3.0, "validation_nme": None}], 0, "l2")


def test_bars_of_layers_stand_in_their_order_with_words_and_numbers() -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", layers_svg(LAYERS[:3], "layers"))
    named = [text for text in texts if "convolution" in text]
    assert named == [f"1×1 convolution, 8 → 16  ·  {number}" for number in (1, 2, 3)]


def test_times_of_engines_stand_in_their_order_with_their_names() -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", latency_svg(TIMES, ["OpenVINO fp32", "OpenVINO int8"]))
    assert [text for text in texts if text.startswith("OpenVINO")] == ["OpenVINO fp32", "OpenVINO int8"]


def test_one_interrupted_row_does_not_flatten_the_bars() -> None:
    interrupted = [{**TIMES[0], "p99_ms": 500.0}, TIMES[1]]
    ticks = re.findall(r"<text[^>]*>([\d.]+)</text>", latency_svg(interrupted, ["a", "b"]))
    assert max(map(float, ticks)) < 10


def test_every_point_of_a_front_tells_how_many_layers_are_in_float() -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", front_svg(POINTS, None, None, "front"))
    assert {"chosen", *map(str, range(6))} <= set(texts)


def test_a_layer_and_a_point_that_are_infinitely_bad_are_drawn_without_their_bar_and_mark() -> None:
    broken = {
        "loss": {"added": {"nme": float("inf"), "upper": float("inf")}},
        "float_layers": [],
        "speedup": 1.0,
        "chosen": False,
        "front": False,
    }
    assert "<svg" in front_svg([broken, *POINTS[1:]], 1e-4, None, "front")
    assert "<svg" in layers_svg([{**LAYERS[0], "part": float("inf")}, *LAYERS[1:]], "layers")


def test_pictures_of_two_files_have_ids_of_their_own() -> None:
    ids = [set(re.findall(r'id="([^"]+)"', layers_svg(LAYERS, f"layers-{name}"))) for name in ("portable", "x86")]
    assert all(ids)
    assert not ids[0] & ids[1]


def test_a_user_s_own_matplotlib_settings_do_not_count(charts: list[str]) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert ced_svg(FACES) == charts[0]
        assert matplotlib.rcParams["font.size"] == 30


def test_the_first_chart_of_a_machine_prints_nothing(tmp_path: Path) -> None:
    code = "import numpy as np; from lmedge.pipeline.reporting.charts import ced_svg; ced_svg({'a': np.array([0.05])})"
    # A folder without a font cache, which matplotlib announces that it builds.
    environment = {"MPLCONFIGDIR": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout + done.stderr == ""
