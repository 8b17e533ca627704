"""What a float network holds inside, crop by crop: further outputs at its end, run on one crop after another.

One crop at a time on one thread: what is seen of a crop then does not depend on the crops beside it or on the number of cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.calibration.crop_store import Crops, crop_batches
from lmedge.export.graph.compare import INPUT, open_session
from lmedge.progress import Progress

if TYPE_CHECKING:
    import onnx


def probe(
    model: onnx.ModelProto | Path,
    tensors: Sequence[str],
    crops_uint8: Crops,
    *,
    reduce: str = "",
    over_positions: bool = False,
    progress: Progress | None = None,
    doing: str = "measuring activations",
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """For each crop of (N, H, W, 3) BGR, the named tensors in this order.

    Args:
        reduce: an ONNX reduction such as ReduceMax that each tensor goes through first; "" gives the tensor itself.
        over_positions: reduce height and width of (1, C, H, W) only, which gives (1, C); otherwise everything, which gives ().
        progress: called with (crops done, in all, `doing`).

    Raises:
        ExportError: ONNX Runtime does not load the network.
    """
    if not tensors:  # ONNX Runtime does not run a network without outputs
        yield from ([] for _ in range(len(crops_uint8)))
        return
    session = open_session(_probed(model, tensors, reduce, over_positions), threads=1)
    done = 0
    for batch in crop_batches(crops_uint8):
        for row in range(len(batch)):
            yield session.run(None, {INPUT: batch[row : row + 1]})
            done += 1
            if progress:
                progress(done, len(crops_uint8), doing)


def _probed(model: onnx.ModelProto | Path, tensors: Sequence[str], reduce: str, over_positions: bool) -> onnx.ModelProto:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    probed = onnx.ModelProto()
    probed.CopyFrom(onnx.load(model) if isinstance(model, Path) else model)
    graph = probed.graph
    axes: list[Any] = []
    if over_positions:
        axes = ["lmedge/positions"]
        graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), *axes))
    names = [f"{name}/{reduce}" if reduce else name for name in tensors]
    if reduce:
        graph.node.extend(
            helper.make_node(reduce, [tensor, *axes], [name], keepdims=0) for tensor, name in zip(tensors, names, strict=True)
        )
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return probed
