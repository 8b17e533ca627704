"""The exported PyTorch program as a runtime: what every engine is compared with. For build machines, not for devices."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from lmedge.errors import BundleFormatError
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus

_EXTRA = "Install it: pip install 'lmedge[train]'"


class TorchReference(Runtime):
    """`model.pt2` in float32 on the CPU; any batch, whatever `batch` says."""

    name = "torch"
    formats = ("torch",)

    _module: Any

    @classmethod
    def status(cls) -> RuntimeStatus:
        # Importing torch takes seconds; whether it is there, its metadata tells.
        try:
            found = find_spec("torch") is not None
            return RuntimeStatus(
                found, version("torch"), ("cpu",) if found else (), "" if found else "torch is broken.", _EXTRA
            )
        except (PackageNotFoundError, ImportError, ValueError):
            return RuntimeStatus(False, None, (), "torch is not installed.", _EXTRA)

    def _open(self) -> None:
        from lmedge.errors import ExportError
        from lmedge.export.torch_to_onnx import load_program

        try:
            self._module = load_program(self.artifact.file).module()
        except ExportError as error:
            raise BundleFormatError(str(error)) from error

    def _infer(self, feeds: Results) -> Results:
        import torch

        before = torch.get_num_threads()
        if self.threads is not None:
            torch.set_num_threads(self.threads)  # torch counts threads per process, so they are given back
        try:
            with torch.inference_mode():
                answers = self._module(*(torch.tensor(feeds[spec.name]) for spec in self.inputs))
        finally:
            torch.set_num_threads(before)
        parts = answers if isinstance(answers, tuple | list) else (answers,)
        # An exported program has no output names; it answers in the order of the network's definition, as `outputs` lists them.
        return {spec.name: np.array(part.numpy()) for spec, part in zip(self.outputs, parts, strict=True)}

    def _close(self) -> None:
        del self._module
