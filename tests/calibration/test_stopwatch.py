"""Times of two networks side by side: a network that does more takes longer, and other work on the machine does not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmedge.calibration.stopwatch import Stopwatch, Timing
from lmedge.errors import LmedgeError
from tests.calibration.landmark_graph import landmark_graph
from tests.calibration.layer_costs import narrow_network
from tests.requirements import missing

ENGINES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.skipif(bool(missing("openvino")), reason="no openvino"))]


def test_a_speed_up_is_fp32_s_time_over_the_network_s() -> None:
    assert Timing(2.0, 5.0).speedup == 2.5
    assert Timing(2.0, 5.0).to_json() == {"latency_ms": 2.0, "fp32_ms": 5.0, "speedup": 2.5}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_is_as_fast_as_itself(engine: str) -> None:
    fp32 = landmark_graph()
    with Stopwatch(fp32, engine=engine) as stopwatch:
        timing = stopwatch(fp32)
    assert 0 < timing.latency_ms < 100
    assert timing.speedup == pytest.approx(1, rel=0.5)


def test_signed_int8_is_slower_than_float_on_onnx_runtime() -> None:
    """As the portable file is on x86 processors, for which it is not meant."""
    network = narrow_network("stem", count=4)
    with Stopwatch(network.fp32) as stopwatch:
        assert stopwatch(network.maker("portable")(frozenset())).speedup < 1


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Stopwatch(landmark_graph(), calls=1) as stopwatch:
        stopwatch(landmark_graph())
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LmedgeError, match="abacus"):
        Stopwatch(landmark_graph(), engine="abacus")
