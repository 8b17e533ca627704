"""The inspector's JSON of three generations of TensorRT, and what is made of it."""

from __future__ import annotations

import json

import pytest

from lmedge.errors import InputError
from lmedge.export.engine_layers import read_layers
from lmedge.export.engine_options import EngineOptions, parse_batch
from lmedge.runtimes.engine_record import BatchProfile


def layers_json(*layers: object) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["image", "landmarks"]})


def conv(kind: str, *, field: str = "Format/Datatype", **more: object) -> dict[str, object]:
    return {"Name": "fused", "LayerType": "CaskConvolution", "Inputs": [{"Name": "x", field: kind}], **more}


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        (conv("Thirty-two wide channel vectorized row major Int8 format"), "int8"),
        (conv("Channel major FP16 format where channel % 8 == 0"), "fp16"),
        (conv("Row major linear FP32"), "fp32"),
        (conv("Half"), "fp16"),
        (conv("Float"), "fp32"),
        (conv("BFloat16"), "bf16"),
        (conv("UInt8"), "uint8"),
        (conv("FP8"), "fp8"),
        (conv("Int8", field="DataType", Format="kLINEAR"), "int8"),
        (conv("Half", Weights={"Type": "Int8"}), "int8"),
        ({"LayerType": "kgen", "Outputs": [{"Format/Datatype": "Int64"}]}, "int64"),
        ({"LayerType": "kgen"}, "unknown"),
        ("features.0", "unknown"),
    ],
    ids=str,
)
def test_a_layer_computes_in_the_type_of_its_weights_else_of_what_it_reads(layer: object, precision: str) -> None:
    assert read_layers(layers_json(layer)).by_precision == {precision: 1}


def test_layers_are_counted_by_precision_with_the_most_frequent_first() -> None:
    found = read_layers(layers_json(conv("Float"), conv("Int8"), conv("Int8")))
    assert list(found.by_precision.items()) == [("int8", 2), ("fp32", 1)]
    assert found.count == 3


def test_convolutions_go_by_their_nodes_of_the_onnx_file() -> None:
    metadata = "[ONNX Layer: node_conv2d_3_input_QuantizeLinear]\x1e[ONNX Layer: node_conv2d_3]\x1e[ONNX Layer: node_clip_2]"
    found = read_layers(
        layers_json(
            conv("Int8", Metadata=metadata),
            conv("Half", Metadata="[ONNX Layer: node_conv2d_9]"),
            {"Name": "head", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "Int8"}]},
            {"Name": "in", "LayerType": "Reformat", "Metadata": "[ONNX Layer: node_conv2d]", "Inputs": []},
        )
    )
    assert found.int8_convolutions == ("node_conv2d_3",)
    assert found.float_convolutions == (("node_conv2d_9", "fp16"),)


def test_a_convolution_inside_a_generated_kernel_is_found_by_its_node() -> None:
    kernel = {"Name": "__myl_x", "LayerType": "kgen", "Inputs": [{"Format/Datatype": "Int8"}]}
    found = read_layers(layers_json({**kernel, "Metadata": "[ONNX Layer: /trunk/conv_1]"}))
    assert found.int8_convolutions == ("/trunk/conv_1",)


def test_without_nodes_tensorrts_own_name_is_taken() -> None:
    assert read_layers(layers_json(conv("Float"))).float_convolutions == (("fused", "fp32"),)


@pytest.mark.parametrize("text", ["", "Layers:\n conv", "[]", '{"Layers": []}'])
def test_what_cannot_be_read_is_no_layer(text: str) -> None:
    found = read_layers(text)
    assert (found.count, found.to_json()["int8_convolutions"]) == (0, [])


# Options


def test_a_batch_range_is_three_rising_numbers() -> None:
    assert parse_batch("1:8:32") == BatchProfile(1, 8, 32)


@pytest.mark.parametrize("text", ["8", "1:8", "1:8:32:64", "1:x:3", "8:4:1", "0:1:1", ""])
def test_any_other_batch_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"LEAST:USUAL:MOST.*--batch 1:8:32; got"):
        parse_batch(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": BatchProfile(2, 4, 8)}, "least batch of an engine must be 1.*got 2:4:8"),
        ({"workspace_mib": 0}, "at least 1 MiB; got 0"),
        ({"optimisation_level": 6}, "must be 0 to 5; got 6"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineOptions(**options)  # type: ignore[arg-type]
