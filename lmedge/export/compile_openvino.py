"""From an ONNX file to an OpenVINO IR (.xml and .bin), on any machine with OpenVINO; needs neither torch nor onnx.

The precision is the one in the ONNX file: nothing is compressed here. The same ONNX file gives the same two files anywhere.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lmedge.bundle import write_atomically
from lmedge.errors import BackendUnavailableError, ExportError
from lmedge.runtimes.openvino import import_openvino

_EXTRA = "Install it: pip install 'lmedge[openvino]'"


def compile_ir(onnx_file: Path, xml_file: Path) -> None:
    """Writes `xml_file` and, beside it, the weights as `.bin`; the batch stays dynamic.

    Raises:
        BackendUnavailableError: OpenVINO is not installed.
        ExportError: the ONNX file is missing, or OpenVINO cannot read it; nothing is written.
        LmedgeError: the disk is full or the folder cannot be written.
    """
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise BackendUnavailableError(f"Compiling for OpenVINO needs it; it does not import ({error}). {_EXTRA}") from error
    with tempfile.TemporaryDirectory(prefix="lmedge-") as folder:
        made = Path(folder) / "model.xml"
        try:
            model = openvino.Core().read_model(str(onnx_file))
            _name_by_place(model)
            openvino.save_model(model, str(made), compress_to_fp16=False)
        except RuntimeError as error:
            raise ExportError(f"OpenVINO {openvino.__version__} cannot convert {onnx_file}: {error}") from error
        # The weights first: an .xml that is there has its .bin.
        for suffix in (".bin", ".xml"):
            write_atomically(xml_file.with_suffix(suffix), made.with_suffix(suffix).read_bytes())


def _name_by_place(model: Any) -> None:
    """Names what OpenVINO numbered itself by its place in the network: its numbers count everything the process ever read."""
    for place, operation in enumerate(model.get_ordered_ops()):
        if operation.get_friendly_name() == operation.get_name():
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
