"""Heads on every trunk: they learn, and serve some of their points; and what each of them alone does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lmedge.pipeline.models import _HEADS, _TRUNKS, Architecture, DeployedNetwork, build_network
from lmedge.pipeline.models.blocks import Features
from lmedge.pipeline.models.heads import Head, HeadPlan, PooledHead
from lmedge.pipeline.models.integral import IntegralHead, cell_centers, expected_answers
from lmedge.pipeline.models.multiscale import MultiScaleHead
from tests.pipeline.networks import settle_norms

CROP_PX, POINTS = 64, 7
PLAN = HeadPlan((16, 24, 40), CROP_PX, POINTS, 16, "relu6")

every_trunk = pytest.mark.parametrize("trunk", _TRUNKS)
every_head = pytest.mark.parametrize("head", _HEADS)
confident_or_not = pytest.mark.parametrize("confidence", [False, True], ids=["points", "confident"])


def architecture(trunk: str, head: str, confidence: bool = False) -> Architecture:
    return Architecture(trunk, 0.1, "relu", 8, CROP_PX, POINTS, head, confidence)


def features_of(plan: HeadPlan, faces: int = 3) -> Features:
    torch.manual_seed(1)
    first, second, third = (
        torch.randn(faces, channels, plan.positions(level), plan.positions(level))
        for level, channels in enumerate(plan.feature_channels)
    )
    return first, second, third


def head_of(name: str, plan: HeadPlan = PLAN) -> Head:
    """With weights as large as learnt ones, so that answers follow the features."""
    torch.manual_seed(0)
    head = _HEADS[name](plan)
    with torch.no_grad():
        for module in head.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.normal_(std=2 / math.sqrt(module.weight[0].numel()))
    return head.eval()


# Every head on every trunk


@every_trunk
@every_head
@confident_or_not
def test_a_step_reaches_every_layer_and_is_one_forward(trunk: str, head: str, confidence: bool) -> None:
    torch.manual_seed(0)
    network = build_network(architecture(trunk, head, confidence)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    images, wanted = torch.randn(4, 3, CROP_PX, CROP_PX), torch.rand(4, POINTS, 3 if confidence else 2)
    before = (network(images) - wanted).square().mean()
    before.backward()
    unmoved = {name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert unmoved <= {"head.maps.0.bias"}, "what a whole heat map has in common cancels in its softmax"
    optimizer.step()
    assert (network(images) - wanted).square().mean() < before


@every_trunk
@every_head
@confident_or_not
def test_kept_points_are_answered_as_before(trunk: str, head: str, confidence: bool) -> None:
    torch.manual_seed(0)
    network = build_network(architecture(trunk, head, confidence))
    settle_norms(network, CROP_PX)
    images, kept = torch.randn(2, 3, CROP_PX, CROP_PX), [4, 0, 5]
    all_points = network.eval()(images)
    network.head.keep_points(kept)
    torch.testing.assert_close(network(images), all_points[:, kept], atol=1e-6, rtol=1e-5)
    assert network.head.num_points == len(kept)
    smaller = Architecture(trunk, 0.1, "relu", 8, CROP_PX, len(kept), head, confidence)
    build_network(smaller).load_state_dict(network.state_dict())


@every_head
def test_a_deployed_network_answers_points_and_confidence_apart(head: str) -> None:
    network = build_network(architecture("mobilenet_v3_small", head, confidence=True)).eval()
    crops = torch.randint(0, 256, (2, CROP_PX, CROP_PX, 3), dtype=torch.uint8)
    deployed = DeployedNetwork(network, 128.0, 64.0)
    points, confidence = deployed(crops)
    assert (points.shape, confidence.shape) == ((2, POINTS, 2), (2, POINTS))
    answers = deployed.trained(crops)
    assert torch.equal(points, answers[:, :, :2])
    torch.testing.assert_close(confidence, 1 / (1 + torch.exp(-answers[:, :, 2])))


@pytest.mark.parametrize("head", ["pooled", "flatten", "multiscale"])
@confident_or_not
def test_an_untrained_head_answers_the_mean_face(head: str, confidence: bool) -> None:
    torch.manual_seed(0)
    mean_face = torch.rand(POINTS, 2)
    network = build_network(architecture("mobilenet_v2", head, confidence)).eval()
    network.head.start_at(mean_face)
    answers = network(torch.randn(3, 3, CROP_PX, CROP_PX))
    torch.testing.assert_close(answers[:, :, :2], mean_face.expand(3, POINTS, 2), atol=0.02, rtol=0)
    assert answers[:, :, 2:].abs().max() < 0.02 if confidence else answers.shape[2] == 2


@every_head
def test_an_untrained_head_answers_inside_the_crop(head: str) -> None:
    torch.manual_seed(0)
    network = build_network(architecture("mobilenet_v2", head)).eval()
    network.head.start_at(torch.full((POINTS, 2), 0.5))
    answers = network(torch.randn(3, 3, CROP_PX, CROP_PX))
    torch.testing.assert_close(answers, torch.full_like(answers, 0.5), atol=0.05, rtol=0)


@every_head
def test_confidence_is_rescaled_and_points_stay(head: str) -> None:
    plan = replace(PLAN, confident=True)
    network, features = head_of(head, plan), features_of(plan)
    before = network(features)
    network.rescale_confidence(1.5, -0.25)
    after = network(features)
    torch.testing.assert_close(after[:, :, :2], before[:, :, :2])
    torch.testing.assert_close(after[:, :, 2], 1.5 * before[:, :, 2] - 0.25)


@every_head
@pytest.mark.parametrize("size", [31, 96, 112, 129])
def test_only_heads_of_any_size_take_other_crops(head: str, size: int) -> None:
    network = build_network(architecture("mobilenet_v3_small", head)).eval()
    if network.head.any_size:
        assert network(torch.zeros(1, 3, size, size)).shape == (1, POINTS, 2)
    else:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            network(torch.zeros(1, 3, size, size))


def test_heads_of_any_size_are_those_that_give_no_position_a_place() -> None:
    assert {name for name in _HEADS if head_of(name).any_size} == {"pooled", "integral"}


# Pooled


def test_pooled_features_have_no_place() -> None:
    head, features = head_of("pooled"), features_of(PLAN)
    assert isinstance(head, PooledHead)
    shuffled = features[2].flatten(2)[:, :, torch.randperm(4)].view_as(features[2])
    torch.testing.assert_close(head((*features[:2], shuffled)), head(features))
    expected = features[2].mean((2, 3)) @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features).flatten(1), expected)


# Multi-scale


@pytest.mark.parametrize(("channels", "kept"), [(64, (4, 16, 64)), (16, (1, 4, 16)), (8, (1, 2, 8)), (1, (1, 1, 1))])
def test_finer_scales_keep_fewer_channels(channels: int, kept: tuple[int, int, int]) -> None:
    head = MultiScaleHead(HeadPlan((32, 96, 320), 112, 68, channels, "relu"))
    assert tuple(squeeze[0].out_channels for squeeze in head.squeezes) == kept
    assert head.linear.in_features == 14**2 * kept[0] + 7**2 * kept[1] + 4**2 * kept[2]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_scale_has_a_say(level: int) -> None:
    head, features = head_of("multiscale"), features_of(PLAN)
    changed = list(features)
    changed[level] = changed[level] + torch.randn(changed[level].shape)
    assert (head((changed[0], changed[1], changed[2])) - head(features)).abs().max() > 0.05


# Integral


def spots(plan: HeadPlan, row: int, column: int) -> Features:
    """Features that are zero but at one position of the coarsest map, and at the finer positions inside it."""
    features = [torch.zeros_like(level) for level in features_of(plan, 1)]
    generator = torch.Generator().manual_seed(3)
    for level, scale in enumerate((4, 2, 1)):
        patch = torch.rand(plan.feature_channels[level], scale, scale, generator=generator)
        features[level][0, :, row * scale : (row + 1) * scale, column * scale : (column + 1) * scale] = patch
    return features[0], features[1], features[2]


def sharp_head(plan: HeadPlan) -> IntegralHead:
    """Whose heat is so steep that positions without features have no weight."""
    head = head_of("integral", plan)
    assert isinstance(head, IntegralHead)
    with torch.no_grad():
        head.maps[0].weight.abs_().mul_(1000)
    return head


@given(size=st.sampled_from([256, 288]), moved=st.tuples(st.integers(-1, 1), st.integers(-1, 1)), confident=st.booleans())
@settings(max_examples=20)
def test_shifted_features_give_points_shifted_as_far(size: int, moved: tuple[int, int], confident: bool) -> None:
    plan = HeadPlan((16, 24, 40), size, POINTS, 16, "relu6", confident)
    head, down, right = sharp_head(plan), *moved
    here, there = head(spots(plan, 4, 3))[0], head(spots(plan, 4 + down, 3 + right))[0]
    spot = torch.tensor([3.5, 4.5]) / plan.positions(2)
    assert (here[:, :2] - spot).abs().max() < 2 / plan.positions(2), "that is where the features are"
    cell = torch.tensor([right, down]) / plan.positions(2)
    torch.testing.assert_close(there[:, :2], here[:, :2] + cell, atol=1e-4, rtol=0)
    torch.testing.assert_close(there[:, 2:], here[:, 2:], atol=1e-3, rtol=0)


def test_a_regression_from_fixed_places_does_not_follow_a_shift() -> None:
    """What the test above would see of a head that learns each place by itself."""
    plan = HeadPlan((16, 24, 40), 256, POINTS, 16, "relu6")
    head = head_of("flatten", plan)
    here, there = head(spots(plan, 4, 3)), head(spots(plan, 4, 4))
    assert (there - here - torch.tensor([32 / 256, 0])).abs().max() > 0.05


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), data=st.data())
def test_all_heat_in_one_cell_is_its_centre(rows: int, columns: int, data: st.DataObject) -> None:
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    heat = torch.zeros(rows, columns)
    heat[row, column] = 1
    x, y = heat.flatten() @ cell_centers(heat[None, None])
    assert float(x) == pytest.approx((column + 0.5) / columns)
    assert float(y) == pytest.approx((row + 0.5) / rows)


def test_without_heat_a_point_is_in_the_middle() -> None:
    torch.testing.assert_close(expected_answers([torch.zeros(2, POINTS, 6, 8)]), torch.full((2, POINTS, 2), 0.5))


def test_cells_say_where_as_their_heat_weighs_them() -> None:
    """Two points on a map of 2 × 4 cells, worked out by hand."""
    heat, further = torch.zeros(2, 2, 2, 4)
    heat[0, 0, 1], heat[0, 1, 3] = 30 + math.log(3), 30  # three to one; the others have no say
    further[0, 0, 1] = 2
    expected = [[0.75 * 1.5 / 4 + 0.25 * 3.5 / 4, 0.75 * 0.5 / 2 + 0.25 * 1.5 / 2, 0.75 * 2], [0.5, 0.5, 0]]
    torch.testing.assert_close(expected_answers([heat[None], further[None]]), torch.tensor([expected]))


@pytest.mark.parametrize("size", [64, 96, 100, 112])
def test_a_coarse_position_covers_the_finer_ones_inside_it(size: int) -> None:
    plan = HeadPlan((16, 24, 40), size, POINTS, 16, "relu6")
    head = IntegralHead(plan).eval()
    seen = []
    head.join_16.act.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    coarse, fine = (torch.rand(1, 16, plan.positions(level), plan.positions(level)) for level in (2, 1))
    head.join_16(coarse, fine)
    places = torch.arange(plan.positions(1)) // 2
    torch.testing.assert_close(seen[0], fine + coarse[:, :, places][:, :, :, places])
