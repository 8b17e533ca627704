"""A dialect's int8 network by what a build asks for: ranked layers, a bound, both, or nothing beyond full int8."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmedge.calibration.bounded_network import BoundedNetwork, bound_network, choice_images
from lmedge.calibration.images import calibration_images
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect, place_qdq
from lmedge.calibration.sensitivity import Make
from lmedge.data.samples import is_validation
from lmedge.errors import CalibrationError
from lmedge.export.graph.compare import check_graph
from lmedge.export.pack import photo_digest
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import MMLAB_5
from tests.calibration.layer_costs import NarrowNetwork, narrow_network
from tests.calibration.pictures import pictured_face

SPEC = PreprocessSpec(input_hw=(32, 32))
FACES = [pictured_face(seed, key=f"photo_{seed // 2}") for seed in range(60)]


@pytest.fixture(scope="module")
def network() -> NarrowNetwork:
    return narrow_network("depthwise_2", count=24)


def bounded(network: NarrowNetwork, dialect: Dialect = X86, make: Make | None = None, **options: Any) -> BoundedNetwork:
    return bound_network(make or network.maker(dialect), network.fp32, network.crops, network.labels, MMLAB_5, **options)


def counted(network: NarrowNetwork, asked: list[frozenset[str]]) -> Make:
    def make(float_layers: frozenset[str]) -> Any:
        asked.append(float_layers)
        return place_qdq(network.fp32, network.ranges, X86, float_layers)

    return make


def test_without_a_wish_it_is_full_int8_and_nothing_is_measured(network: NarrowNetwork) -> None:
    asked: list[frozenset[str]] = []
    found = bounded(network, make=counted(network, asked))
    assert asked == [frozenset()]
    assert (found.float_layers, found.sensitivity, found.bound) == ((), None, None)
    assert found.model == network.maker(X86)(frozenset())


def test_a_bound_that_full_int8_meets_ranks_nothing(network: NarrowNetwork) -> None:
    found = bounded(network, max_nme_loss=1.0)
    assert found.sensitivity is None
    assert found.bound is not None
    assert [point.float_layers for point in found.bound.points] == [()]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tight_bound_leaves_the_spoilt_layer_in_float(network: NarrowNetwork, dialect: Dialect) -> None:
    full = bounded(network, dialect, max_nme_loss=1.0)
    assert full.bound is not None
    found = bounded(network, dialect, max_nme_loss=0.3 * full.bound.chosen.loss.added.upper)
    assert found.bound is not None
    assert found.bound.met
    assert {"depthwise_2", "project_2"} & set(found.float_layers)
    assert 0 < len(found.float_layers) < len(network.layers)
    assert found.model == network.maker(dialect)(frozenset(found.float_layers))
    check_graph(found.model, "leave layers in float")


def test_ranking_alone_leaves_nothing_in_float_and_measures_no_time(network: NarrowNetwork) -> None:
    found = bounded(network, PORTABLE, sensitivity=True)
    assert found.bound is None
    assert found.float_layers == ()
    assert found.sensitivity is not None
    assert set(found.sensitivity.order) == set(network.layers)
    assert found.sensitivity.layers[0].what in ("3×3 depthwise convolution, 24", "1×1 convolution, 24 → 6")


def test_ranking_beside_a_bound_measures_the_whole_path_once_ranked(network: NarrowNetwork) -> None:
    asked: list[frozenset[str]] = []
    found = bounded(network, make=counted(network, asked), sensitivity=True, max_nme_loss=1.0)
    assert found.bound is not None
    assert found.bound.points[-1].float_layers == found.sensitivity.order if found.sensitivity else False
    assert found.float_layers == ()
    layers = len(network.layers)
    assert len(asked) == (1 + layers + min(20, layers)) + len(found.bound.points) + 1


def test_a_cheaper_maker_ranks_and_the_given_one_makes_the_points(network: NarrowNetwork) -> None:
    cheap: list[frozenset[str]] = []
    whole: list[frozenset[str]] = []
    found = bounded(network, make=counted(network, whole), rank_with=counted(network, cheap), max_nme_loss=0.0)
    assert found.bound is not None
    assert len(cheap) > len(network.layers)
    assert whole == [frozenset(point.float_layers) for point in found.bound.points] + [frozenset(found.float_layers)]


def test_the_record_is_plain_data(network: NarrowNetwork) -> None:
    found = bounded(network, sensitivity=True, min_speedup=1000.0)
    document = json.loads(json.dumps(found.to_json()))
    assert document["faces"] == 24
    assert document["engine"] == "onnxruntime"
    assert document["bound"]["met"] is False


# The faces that choose


def test_layers_are_chosen_on_training_photos_that_were_not_calibrated_on() -> None:
    with calibration_images(FACES, SPEC, count=10, seed=0) as calibrated:
        taken = set(calibrated.photo_digests)
        with choice_images(FACES, calibrated, SPEC, seed=0) as choice:
            training = {photo_digest(face.photo_key) for face in FACES if not is_validation(face.photo_key)}
            assert set(choice.photo_digests) == training - taken
            assert len(choice.crops) == sum(photo_digest(face.photo_key) in choice.photo_digests for face in FACES)
            assert choice.fractions.shape == (len(choice.crops), 5, 2)


def test_a_calibration_that_took_every_photo_is_told_to_take_fewer() -> None:
    with calibration_images(FACES, SPEC, count=1000, seed=0) as calibrated:
        photos = len(calibrated.photo_digests)
        with pytest.raises(CalibrationError, match=rf"all {photos} training photos.*--set quantize.images={photos // 2}"):
            choice_images(FACES, calibrated, SPEC, seed=0)
