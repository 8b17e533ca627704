"""Small quantised graphs in ONNX text: for each rule of the linter some that break it and nothing else, beside a sound one."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

CHANNELS = 8


def _row(value: object, count: int = CHANNELS) -> str:
    return ", ".join([str(value)] * count)


CONSTANTS = f"""
   float s = {{0.5}}, int8 z = {{0}}, int8 z3 = {{3}}, uint8 u0 = {{0}}, uint8 u128 = {{128}}, int16 i0 = {{0}},
   float s_half = {{0.25}}, float s_minus = {{-0.5}}, float s_zero = {{0}}, float16 h = {{14336}},
   float[{CHANNELS}] ws = {{{_row(0.1)}}}, int8[{CHANNELS}] wz = {{{_row(0)}}}, int8[{CHANNELS}] wz1 = {{{_row(1)}}},
   float[{CHANNELS}] ws_minus = {{{_row(0.1, 7)}, -0.1}}, float16[{CHANNELS}] wh = {{{_row(14336)}}},
   float[2, {CHANNELS}, 1, 1] ws_blocks = {{{_row(0.1, 16)}}}, int8[2, {CHANNELS}, 1, 1] wz_blocks = {{{_row(0, 16)}}},
   int8[{CHANNELS}, {CHANNELS}, 1, 1] w = {{{_row(1, 64)}}}, float[{CHANNELS}, {CHANNELS}, 1, 1] wf = {{{_row(0.1, 64)}}},
   uint8[{CHANNELS}, {CHANNELS}, 1, 1] wu = {{{_row(129, 64)}}}, uint8[{CHANNELS}] wu0 = {{{_row(0)}}},
   float[{CHANNELS}] b = {{{_row(0.5)}}}, int32[{CHANNELS}] bi = {{{_row(9)}}}, int32[{CHANNELS}] bz = {{{_row(0)}}},
   int8[{CHANNELS}, {CHANNELS}] g = {{{_row(1, 64)}}}, float[{CHANNELS}, {CHANNELS}] gf = {{{_row(0.1, 64)}}},
   int64[2] flat = {{-1, {CHANNELS}}}, int64[4] image = {{-1, {CHANNELS}, 1, 1}}, int64[2] rows_and_columns = {{2, 3}}
"""
IMAGES = f"float[batch, {CHANNELS}, 1, 1]"
# Weights stored as int8, the layout that lmedge writes, and the same as floats with both nodes.
WEIGHTS = "wd = DequantizeLinear <axis = 0> (w, ws, wz)"
FLOAT_WEIGHTS = """wq = QuantizeLinear <axis = 0> (wf, ws, wz)
                   wd = DequantizeLinear <axis = 0> (wq, ws, wz)"""


def pair(source: str, result: str, scale: str = "s", zero: str = "z", options: str = "") -> str:
    """A QuantizeLinear named quantize_… and a DequantizeLinear named dequantize_…, in text."""
    return f"""[quantize_{source}] {result}_q = QuantizeLinear {options} ({source}, {scale}, {zero})
               [dequantize_{source}] {result} = DequantizeLinear {options} ({result}_q, {scale}, {zero})"""


def graph(body: str, *, opset: int = 20, x: str = IMAGES, y: str = IMAGES, domains: str = "") -> str:
    """The text of a model with these nodes, from `x` to `y`; they may use the constants above."""
    return f'<ir_version: 10, opset_import: ["" : {opset}{domains}]>\ng ({x} x) => ({y} y)\n<{CONSTANTS}>\n{{ {body} }}'


def parse(text: str) -> onnx.ModelProto:
    """The model of a text, with the constants that it uses and no others."""
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    used = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)
    return model


CONV = "[conv] y = Conv (xd, wd, b)"
SOUND = graph(f"{WEIGHTS} {pair('x', 'xd')} {CONV}")
MICROSOFT = ', "com.microsoft" : 1'


@dataclass(frozen=True)
class Case:
    """A rule, a graph that breaks it at `node`, and its sound counterpart."""

    rule: str
    node: str
    broken: str
    sound: str = SOUND
    note: str = ""

    def __str__(self) -> str:
        return f"{self.rule}-{self.note}" if self.note else self.rule


CASES = (
    Case("zero-point", "quantize_x", graph(f"{WEIGHTS} {pair('x', 'xd', zero='z3')} {CONV}")),
    Case(
        "zero-point",
        "DequantizeLinear → wd",
        graph(f"wd = DequantizeLinear <axis = 0> (w, ws, wz1) {pair('x', 'xd')} {CONV}"),
        note="weights",
    ),
    Case("activation-type", "quantize_x", graph(f"{WEIGHTS} {pair('x', 'xd', zero='u0')} {CONV}"), note="uint8"),
    Case("activation-type", "quantize_x", graph(f"{WEIGHTS} {pair('x', 'xd', zero='i0')} {CONV}", opset=21), note="int16"),
    Case(
        "activation-type",
        "q",
        graph(f"{WEIGHTS} [q] xq = QuantizeLinear (x, s) [d] xd = DequantizeLinear (xq, s) {CONV}"),
        note="unsaid",
    ),
    Case(
        "activation-type",
        "d",
        graph(f"{WEIGHTS} [d] xd = DequantizeLinear (x, s, u0) {CONV}", x=f"uint8[batch, {CHANNELS}, 1, 1]"),
        graph(f"{WEIGHTS} [d] xd = DequantizeLinear (x, s, z) {CONV}", x=f"int8[batch, {CHANNELS}, 1, 1]"),
        note="uint8-input",
    ),
    Case(
        "weight-type",
        "DequantizeLinear → wd",
        graph(f"wd = DequantizeLinear <axis = 0> (wu, ws, wu0) {pair('x', 'xd')} {CONV}"),
    ),
    Case(
        "bias-int32",
        "bias",
        graph(f"{WEIGHTS} {pair('x', 'xd')} [bias] bd = DequantizeLinear <axis = 0> (bi, ws, bz) [conv] y = Conv (xd, wd, bd)"),
    ),
    Case(
        "scale-positive",
        "DequantizeLinear → wd",
        graph(f"wd = DequantizeLinear <axis = 0> (w, ws_minus, wz) {pair('x', 'xd')} {CONV}"),
        note="negative",
    ),
    Case("scale-positive", "quantize_x", graph(f"{WEIGHTS} {pair('x', 'xd', scale='s_zero')} {CONV}"), note="zero"),
    Case(
        "scale-constant",
        "quantize_x",
        graph(f"{WEIGHTS} sx = ReduceMax <keepdims = 0> (x) {pair('x', 'xd', scale='sx')} {CONV}"),
        graph(f"{WEIGHTS} sx = Constant <value_float = 0.5> () {pair('x', 'xd', scale='sx')} {CONV}"),
    ),
    Case(
        "scale-blocked",
        "DequantizeLinear → wd",
        graph(f"wd = DequantizeLinear <axis = 0, block_size = 4> (w, ws_blocks, wz_blocks) {pair('x', 'xd')} {CONV}", opset=21),
    ),
    Case("scale-per-tensor", "quantize_x", graph(f"{WEIGHTS} {pair('x', 'xd', 'ws', 'wz', '<axis = 1>')} {CONV}")),
    Case(
        "weight-axis",
        "DequantizeLinear → wd",
        graph(f"wd = DequantizeLinear <axis = 1> (w, ws, wz) {pair('x', 'xd')} {CONV}"),
        graph(f"wd = DequantizeLinear <axis = -4> (w, ws, wz) {pair('x', 'xd')} {CONV}"),
        note="stored",
    ),
    Case(
        "weight-axis",
        "QuantizeLinear → wq",
        graph(f"{FLOAT_WEIGHTS.replace('axis = 0', 'axis = 1')} {pair('x', 'xd')} {CONV}"),
        graph(f"{FLOAT_WEIGHTS} {pair('x', 'xd')} {CONV}"),
        note="both-nodes",
    ),
    Case(
        "qoperator",
        "conv",
        graph("[conv] y = ConvInteger (x, w)", x=f"int8[batch, {CHANNELS}, 1, 1]", y=f"int32[batch, {CHANNELS}, 1, 1]"),
    ),
    Case(
        "qoperator", "dynamic", graph("[dynamic] q, sq, zq = DynamicQuantizeLinear (x) y = Cast <to = 1> (q)"), note="dynamic"
    ),
    Case(
        "domain",
        "conv",
        graph(
            '[conv] y = com.microsoft.FusedConv <activation = "Relu"> (x, wf, b)',
            domains=MICROSOFT,
        ),
        note="fused",
    ),
    Case(
        "domain",
        "quantize_x",
        graph(f"{WEIGHTS} {pair('x', 'xd').replace('= ', '= com.microsoft.')} {CONV}", domains=MICROSOFT),
        note="quantisers",
    ),
    Case(
        "opset",
        "DequantizeLinear → wd",
        graph(
            f"wd = DequantizeLinear <axis = 0> (w, wh, wz) {pair('x', 'xd', scale='h')} [conv] y = Conv (xd, wd)",
            opset=18,
            x=IMAGES.replace("float", "float16"),
            y=IMAGES.replace("float", "float16"),
        ),
        graph(
            f"wd = DequantizeLinear <axis = 0> (w, wh, wz) {pair('x', 'xd', scale='h')} [conv] y = Conv (xd, wd)",
            opset=19,
            x=IMAGES.replace("float", "float16"),
            y=IMAGES.replace("float", "float16"),
        ),
        note="fp16",
    ),
    Case(
        "opset",
        "DequantizeLinear → wd",
        graph(f"{WEIGHTS} {pair('x', 'xd')} {CONV}", opset=12),
        graph(f"{WEIGHTS} {pair('x', 'xd')} {CONV}", opset=13),
        note="axis",
    ),
    Case(
        "mixed-types",
        "conv",
        graph(f"{WEIGHTS} c = Cast <to = 10> (x) {pair('c', 'xd', scale='h')} [conv] y = Conv (xd, wd, b)"),
        graph(f"{WEIGHTS} c = Cast <to = 10> (x) {pair('c', 'xh', scale='h')} xd = Cast <to = 1> (xh) {CONV}"),
    ),
    Case(
        "uint8-tensor",
        "transpose",
        graph(
            f"[transpose] t = Transpose <perm = [0, 3, 1, 2]> (x) c = Cast <to = 1> (t) {WEIGHTS} {pair('c', 'xd')} {CONV}",
            x=f"uint8[batch, 1, 1, {CHANNELS}]",
        ),
        graph(
            f"c = Cast <to = 1> (x) [transpose] t = Transpose <perm = [0, 3, 1, 2]> (c) {WEIGHTS} {pair('t', 'xd')} {CONV}",
            x=f"uint8[batch, 1, 1, {CHANNELS}]",
        ),
    ),
    Case("half-quantised-layer", "conv", graph(f"{pair('x', 'xd')} [conv] y = Conv (xd, wf, b)"), note="input"),
    Case(
        "half-quantised-layer",
        "conv",
        graph(f"{WEIGHTS} [conv] y = Conv (x, wd, b)"),
        graph(f"{WEIGHTS} m = GlobalAveragePool (x) r = Relu (m) [conv] y = Conv (r, wd, b)"),
        note="weights",
    ),
    Case(
        "pair-before-activation",
        "relu",
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} [relu] y = Relu (cd)"),
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) r = Relu (c) {pair('r', 'rd')} y = Conv (rd, wd, b)"),
    ),
    Case(
        "pair-on-output",
        "dequantize_c",
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} y = Transpose <perm = [0, 1, 3, 2]> (cd)"),
    ),
    Case(
        "pair-without-layer",
        "dequantize_c",
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} m = GlobalAveragePool (cd) y = Mul (cd, m)"),
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) m = GlobalAveragePool (c) y = Mul (c, m)"),
    ),
    Case(
        "pair-differs",
        "d",
        graph(f"{WEIGHTS} [q] xq = QuantizeLinear (x, s, z) [d] xd = DequantizeLinear (xq, s_half, z) {CONV}"),
    ),
    Case(
        "unpaired",
        "q",
        graph(f"{WEIGHTS} [q] xq = QuantizeLinear (x, s, z) r = Relu (xq) xd = DequantizeLinear (r, s, z) {CONV}"),
        graph(
            f"{WEIGHTS} [q] xq = QuantizeLinear (x, s, z) t = Transpose <perm = [0, 1, 3, 2]> (xq)"
            f" xd = DequantizeLinear (t, s, z) {CONV}"
        ),
    ),
    Case(
        "residual-both",
        "add",
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} [add] y = Add (xd, cd)"),
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) [add] y = Add (xd, c)"),
    ),
    Case(
        "residual-main",
        "add",
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} [add] y = Add (x, cd)"),
        graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) [add] y = Add (x, c)"),
    ),
    Case(
        "head-quantised",
        "head",
        graph(
            f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} f = Reshape (cd, flat)"
            " gd = DequantizeLinear (g, s, z) [head] y = Gemm (f, gd)",
            y=f"float[batch, {CHANNELS}]",
        ),
        graph(
            f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) f = Reshape (c, flat) [head] y = Gemm (f, gf)",
            y=f"float[batch, {CHANNELS}]",
        ),
    ),
)
