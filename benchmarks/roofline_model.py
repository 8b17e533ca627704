"""The roofline of one thread, and what keeps a layer from it: pure arithmetic on measured numbers.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures", CACM 2009, with
multiply-adds in place of operations. A layer takes at least its multiply-adds over the peak, at least its bytes over the
bandwidth of the cache that holds them, and at least what any call of a layer costs. The largest of the three bounds it.

    time of a call = multiply-adds at the peak + what each cause costs + what passes between layers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layer_profiles import CONVERSIONS, DEPTHWISE, EngineLayer

COMPUTE, BYTES, CALL = "compute", "bytes", "call"
# Causes of time beyond the peak, in the order in which they are told.
FIRST_LAYER, DEPTHWISE_LAYERS = "first layer, few channels in", "depthwise layers"
SMALL_LAYERS, LAYER_BYTES = "layers too small: the fixed cost of a layer's call", "bytes of dense layers"
SHAPES = "dense layers below their roof"
IMAGE, HEAD = "image, before the first layer", "head, behind the last convolution"
CONVERTING, MIDDLE = "conversions between layers", "adds, activations and means between layers"
CAUSES = (SMALL_LAYERS, SHAPES, LAYER_BYTES, DEPTHWISE_LAYERS, FIRST_LAYER, IMAGE, CONVERTING, MIDDLE, HEAD)
# A colour image has three channels, which leaves most lanes of a vector of products empty.
_FEW_CHANNELS = 4


@dataclass(frozen=True)
class Machine:
    """What one thread can do.

    Attributes:
        peaks: precision → multiply-adds per second (in GMAC/s); what was not measured is left out.
        bandwidths: bytes that are in use → GB/s read and written, for each cache and for memory.
        call_us: precision → what a layer of hardly any work costs.
    """

    peaks: Mapping[str, float]
    bandwidths: Mapping[int, float]
    call_us: Mapping[str, float]

    def bandwidth(self, held: int) -> float:
        """GB/s for a layer that uses `held` bytes: that of the smallest measured size that holds them, else of the largest."""
        sizes = sorted(self.bandwidths)
        return self.bandwidths[next((size for size in sizes if held <= size), sizes[-1])]


@dataclass(frozen=True)
class Bounded:
    """A layer against the roofline.

    Attributes:
        compute_us, bytes_us, call_us: the least that each of the three allows; bound: the one that is largest.
        gmacs: GMAC/s as measured; of_peak: part of the peak; intensity: multiply-adds per byte.
    """

    layer: EngineLayer
    compute_us: float
    bytes_us: float
    call_us: float
    bound: str
    gmacs: float
    of_peak: float
    intensity: float


def bounded(layer: EngineLayer, machine: Machine) -> Bounded:
    """What bounds a layer."""
    held = layer.weight_bytes + layer.activation_bytes
    peak = machine.peaks[layer.precision] if layer.macs else 0.0
    compute_us = layer.macs / peak / 1e3 if layer.macs else 0.0
    bytes_us = held / machine.bandwidth(held) / 1e3
    call_us = machine.call_us[layer.precision]
    limits = {COMPUTE: compute_us, BYTES: bytes_us, CALL: call_us}
    gmacs = layer.macs / layer.us / 1e3 if layer.us else 0.0
    return Bounded(
        layer,
        compute_us,
        bytes_us,
        call_us,
        max(limits, key=lambda name: limits[name]),
        gmacs,
        gmacs / peak if peak else 0.0,
        layer.macs / held if held else 0.0,
    )


@dataclass(frozen=True)
class Budget:
    """Where the time of a call goes, in us.

    Attributes:
        whole: the call without the profiler; ideal: all multiply-adds at the peak of their precision.
        causes: cause → its time beyond the ideal, all of `CAUSES`.
        between: whole − ideal − causes. Below 0 where the profiler adds more to layers than passes between them.
    """

    whole: float
    ideal: float
    causes: Mapping[str, float]
    between: float


def budget(layers: Sequence[Bounded], whole_us: float) -> Budget:
    """Splits a call; `layers` in the order of execution."""
    working = [place for place, entry in enumerate(layers) if entry.layer.macs]
    first, last = (working[0], working[-1]) if working else (len(layers), len(layers))
    causes = dict.fromkeys(CAUSES, 0.0)
    for place, entry in enumerate(layers):
        for cause, us in _rest(entry, before=place < first, behind=place > last).items():
            causes[cause] += us
    ideal = sum(entry.compute_us for entry in layers)
    return Budget(whole_us, ideal, causes, whole_us - ideal - sum(causes.values()))


def _rest(entry: Bounded, *, before: bool, behind: bool) -> dict[str, float]:
    """Cause → time of a layer beyond its multiply-adds at the peak; together exactly that."""
    layer, rest_us = entry.layer, entry.layer.us - entry.compute_us
    if not layer.macs:
        if before or behind:
            return {IMAGE if before else HEAD: rest_us}
        return {CONVERTING if layer.kind == CONVERSIONS else MIDDLE: rest_us}
    if layer.kind == DEPTHWISE:
        return {DEPTHWISE_LAYERS: rest_us}
    if layer.inputs <= _FEW_CHANNELS:
        return {FIRST_LAYER: rest_us}
    small = min(entry.call_us, max(rest_us, 0.0))
    moved = min(max(entry.bytes_us - entry.compute_us, 0.0), max(rest_us - small, 0.0))
    return {SMALL_LAYERS: small, LAYER_BYTES: moved, SHAPES: rest_us - small - moved}
