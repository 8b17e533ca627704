"""Inference engines behind one interface: `find_runtime("onnxruntime")`, `runtime_names()`.

Adapters are found by name in `_ADAPTERS`; other packages add theirs through the entry-point group ``lmedge.runtimes``.
No engine is imported before one of its runtimes is opened.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

from lmedge.errors import BackendUnavailableError
from lmedge.runtimes.base import Runtime

_ADAPTERS = {
    "onnxruntime": "lmedge.runtimes.onnxruntime:OnnxRuntime",
    "openvino": "lmedge.runtimes.openvino:OpenVinoRuntime",
    "tensorrt": "lmedge.runtimes.tensorrt:TensorRtRuntime",
    "torch": "lmedge.export.torch_reference:TorchReference",
    "fake": "lmedge.runtimes.fake:FakeRuntime",
}
_GROUP = "lmedge.runtimes"


def runtime_names() -> tuple[str, ...]:
    """Names of all adapters: lmedge's own, then those of other installed packages."""
    return (*_ADAPTERS, *sorted(point.name for point in entry_points(group=_GROUP) if point.name not in _ADAPTERS))


def find_runtime(name: str) -> type[Runtime]:
    """The adapter class of that name; importing it imports no engine.

    Raises:
        BackendUnavailableError: no adapter has that name.
    """
    if name in _ADAPTERS:
        module, _, attribute = _ADAPTERS[name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
    else:
        points = [point for point in entry_points(group=_GROUP) if point.name == name]
        if not points:
            near = difflib.get_close_matches(name, runtime_names(), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BackendUnavailableError(f"No runtime is called {name!r}; known: {', '.join(runtime_names())}.{hint}")
        found = points[0].load()
    if not (isinstance(found, type) and issubclass(found, Runtime)):
        raise BackendUnavailableError(f"The entry point {name!r} names {found!r}, which is no lmedge.runtimes.Runtime.")
    return found
