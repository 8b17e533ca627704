"""What is timed: a bundle's file on an engine, opened, and held to the golden vectors before the clock runs."""

from __future__ import annotations

import numpy as np

from lmedge.bundle import Bundle
from lmedge.runtimes import find_runtime
from lmedge.runtimes.answers import all_answers
from lmedge.runtimes.benchmarking.guarded_calls import SAME_PX, EngineCall, GuardedCall, PredictCall
from lmedge.runtimes.benchmarking.scene import make_scene
from lmedge.runtimes.checks import PlannedCheck
from lmedge.runtimes.gates import GateLimits
from lmedge.runtimes.golden import Golden
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.parity import check_golden, require

# In pixels of the crop. A trained network moves its points by tens of pixels from one golden face to another; one that hardly
# moves them there need not tell other crops apart either.
_TELLING_PX = 0.2


class Subject:
    """An opened engine and its calls to time; a context manager.

    Attributes:
        backend, artifact, threads, batch: what was opened; landmarker, runtime: for `batch` faces per call.
        calls: `predict`, then the bare engine call.
        unguarded: what answers could not be held to; "" where they are held to everything.
    """

    def __init__(
        self,
        bundle: Bundle,
        check: PlannedCheck,
        *,
        device: str | None,
        threads: int | None,
        batch: int,
        limits: GateLimits | None = None,
    ) -> None:
        """
        Raises:
            ParityError: the engine does not answer as the golden vectors say, or answers the same to everything.
            BackendUnavailableError: the engine or its device is not here.
        """
        self.backend, self.artifact, self.threads, self.batch = check.backend, check.artifact, threads, batch
        self.unguarded = ""
        self.runtime = find_runtime(check.backend).open(check.artifact, device=device, threads=threads, batch=batch)
        try:
            # The same engine under both, since two would drive each other out of the processor's caches.
            self.landmarker = FaceLandmarker(bundle, self.runtime)
            limits = limits or GateLimits()
            telling = self._hold_to_golden(limits)
            self.calls = self._guarded_calls(limits, telling)
        except BaseException:
            self.close()
            raise

    def _hold_to_golden(self, limits: GateLimits) -> bool:
        """Checks the golden answers; whether the network is one that tells crops from each other."""
        bundle = self.landmarker.bundle
        if bundle.manifest.golden is None:
            self.unguarded = "the bundle has no golden vectors, so answers were only compared with each other"
            return True
        require([check_golden(self.landmarker, limits)])
        golden = Golden.from_file(bundle.golden_file())
        if float(np.max(np.ptp(golden.fractions, axis=0))) * golden.crops.shape[2] > _TELLING_PX:
            return True
        self.unguarded = "the network answers the same to all golden crops, so an engine that repeats answers cannot be seen"
        return False

    def _guarded_calls(self, limits: GateLimits, telling: bool) -> tuple[GuardedCall, ...]:
        scene = make_scene(self.landmarker.spec)
        expected = all_answers(self.runtime, scene.crops).fractions
        # In another place of a batch, sums are in another order, which moves what int8 rounds.
        limit_px = SAME_PX if self.batch == 1 else limits.golden_px(self.artifact.precision)
        name = f"{self.backend} {self.artifact.precision} ({self.artifact.path})"
        calls = PredictCall(name, scene, self.batch, self.landmarker), EngineCall(name, scene, self.batch, self.runtime)
        for call in calls:
            call.keep_answers(expected, limit_px, must_differ=telling)
        return calls

    def close(self) -> None:
        """Frees the engine."""
        self.runtime.close()

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
