"""--sensitivity, --max-nme-loss and --min-speedup: what they set, and what is printed of what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmedge.cli.layers import bound_settings, print_layers
from tests.cli.command import DONE, ERROR, USAGE, lmedge
from tests.requirements import require

require("onnx", "onnxruntime", "torch", "pydantic")

from tests.calibration.layer_costs import PART_LAYERS, part  # noqa: E402  (needs onnx)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ((None, None), {}),
        ((0.03, None), {"max_nme_loss": 0.0003}),
        ((0.0, None), {"max_nme_loss": 0.0}),
        ((None, 1.5), {"min_speedup": 1.5}),
        ((0.1, 2.0, True), {"max_nme_loss": 0.001, "min_speedup": 2.0, "sensitivity": True}),
    ],
)
def test_points_become_fractions_and_what_was_not_given_stays(options: Any, settings: dict[str, Any]) -> None:
    assert bound_settings(*options) == ({"quantize": settings} if settings else {})


@pytest.mark.parametrize("command", ["build", "quantize"])
def test_both_commands_have_the_bounds(command: str) -> None:
    text = lmedge(command, "--help").stdout
    assert "--max-nme-loss" in text
    assert "--min-speedup" in text
    assert ("--sensitivity" in text) == (command == "quantize")


def test_a_plan_shows_that_a_bound_changes_the_quantize_stage(tmp_path: Path) -> None:
    outcome = lmedge("build", "--out", tmp_path / "run", "--max-nme-loss", 0.03, "--min-speedup", 1.5, "--plan", "--json")
    assert outcome.code == DONE, outcome


@pytest.mark.parametrize(
    ("option", "value", "code", "message"),
    [
        ("--max-nme-loss", "3", ERROR, "quantize.max_nme_loss must be between 0 and 0.02; got 0.03"),
        ("--max-nme-loss", "-1", ERROR, "quantize.max_nme_loss must be between 0 and 0.02; got -0.01"),
        ("--min-speedup", "0", ERROR, "quantize.min_speedup must be above 0; got 0"),
        ("--max-nme-loss", "little", USAGE, "Invalid value for '--max-nme-loss'"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(option: str, value: str, code: int, message: str, tmp_path: Path) -> None:
    outcome = lmedge("build", "--out", tmp_path / "run", option, value, "--plan")
    assert outcome.code == code
    assert message in " ".join(outcome.stderr.split())


def test_layers_are_printed_most_harmful_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_layers({"portable": part(sensitivity=True), "x86": part()})
    text = capsys.readouterr().out
    places = [text.index(layer) for layer in PART_LAYERS[:10]]
    assert places == sorted(places)
    assert PART_LAYERS[10] not in text
    assert text.startswith("portable: layers by what their rounding does, on 8 training faces")


def test_a_bound_that_was_met_is_printed_with_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    print_layers({"x86": part(max_nme_loss=6e-5)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x86: Asked for at most 0.006 points of NME added; the path from int8 to float gives:"
    assert lines[-1].endswith("← chosen")


def test_a_bound_that_was_missed_is_left_to_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    print_layers({"x86": part(max_nme_loss=6e-5, min_speedup=2.1)})
    assert capsys.readouterr().out == ""
