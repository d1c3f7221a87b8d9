"""Converts operators of TensorFlow that the converter lacks, or converts wrongly.

`HANDLERS` has a function per operator, which the converter calls with its graph and the node.
`REWRITERS` change several nodes at once, before the converter looks at each.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tf2onnx.graph import Graph, Node

SIGN_BIT = np.iinfo(np.int32).min  # of a float32, the bits of -0.0 as an int32


def _erfc(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts Erfc, which exact GELU uses and ONNX lacks, to 1 - Erf."""
    negative = _node(context, "Neg", _node(context, "Erf", node.input[0]))
    _replace(context, node, "Add", negative, _one(context, node))


def _expm1(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts Expm1, which celu uses and ONNX lacks, to Exp - 1."""
    _replace(context, node, "Sub", _node(context, "Exp", node.input[0]), _one(context, node))


def _log1p(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts Log1p, which logaddexp uses and ONNX lacks, to Log(1 + x)."""
    _replace(context, node, "Log", _node(context, "Add", node.input[0], _one(context, node)))


def _floor_mod(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts FloorMod of integers to Mod, whose result has the divisor's sign.

    The converter would subtract a multiple of the quotient, which ONNX rounds towards zero.
    """
    from tf2onnx.onnx_opset.math import FloorMod

    if _dtype(context, node.input[0]).kind == "f":
        FloorMod.version_7(context, node)
    else:
        _replace(context, node, "Mod", *node.input)


def _floor_div(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts FloorDiv of integers; the converter would leave them rounded towards zero."""
    from onnx import TensorProto
    from tf2onnx.onnx_opset.math import FloorDiv

    kind = context.get_dtype(node.input[0])
    if _dtype(context, node.input[0]).kind == "f":
        FloorDiv.version_6(context, node)
        return
    wide = kind if kind in (TensorProto.INT32, TensorProto.INT64) else TensorProto.INT64
    x, y = (_cast(context, source, wide) for source in node.input)
    quotient = _node(context, "Div", x, y)
    remainder = _node(context, "Sub", x, _node(context, "Mul", quotient, y))
    # The quotient was rounded up if its remainder is not that of the floor.
    exact = _node(context, "Equal", remainder, _node(context, "Mod", x, y))
    excess = _cast(context, _node(context, "Not", exact), wide)
    if wide == kind:
        _replace(context, node, "Sub", quotient, excess)
    else:
        _replace(context, node, "Cast", _node(context, "Sub", quotient, excess), to=kind)


def _one_hot(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts OneHot to a comparison of the indices with all places.

    ONNX's own OneHot counts negative indices from the end, and TensorFlow's has no place for them.
    """
    from onnx import TensorProto

    indices, depth, on, off = node.input
    axis = node.get_attr_value("axis", -1)
    after = 0 if axis == -1 else context.get_rank(indices) - axis  # axes after that of the places
    zero, one = (_constant(context, np.array(value, np.int64)) for value in (0, 1))
    places = _node(context, "Range", zero, _cast(context, depth, TensorProto.INT64), one)
    if after:
        places = _unsqueeze(context, places, *range(1, after + 1))
    indices = _unsqueeze(context, _cast(context, indices, TensorProto.INT64), axis)
    here, kind = _node(context, "Equal", indices, places), context.get_dtype(on)
    if kind != TensorProto.BOOL:
        _replace(context, node, "Where", here, on, off)
    else:  # onnxruntime has no Where for it
        on, off = (_cast(context, source, TensorProto.INT32) for source in (on, off))
        _replace(context, node, "Cast", _node(context, "Where", here, on, off), to=kind)


def _conv_transpose(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts transposed convolutions, also to outputs larger than all kernels cover.

    The converter would pad those outputs by negative numbers, or with zeros after it has added the
    bias.
    """
    from tf2onnx.onnx_opset.nn import ConvTranspose

    if len(node.input) == 4 and -1 in context.get_shape(node.input[2])[1:]:
        bias = node.input[3]
        context.remove_input(node, bias, 3)
        context.insert_new_node_on_output("Add", node.output[0], inputs=[node.output[0], bias])
    ConvTranspose.version_11(context, node)
    pads = node.get_attr_value("pads")  # of fixed sizes
    totals = [] if pads is None else np.add(*np.split(np.array(pads), 2)).tolist()
    if any(total < 0 for total in totals):
        kept = [0 if total < 0 else pad for total, pad in zip(totals * 2, pads, strict=True)]
        node.set_attr("pads", kept)
        node.set_attr("output_padding", [max(-total, 0) for total in totals])


def _conv3d(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts Conv3D; the converter would leave out its groups."""
    from tf2onnx.onnx_opset.nn import ConvOp

    channels, per_group = context.get_shape(node.input[0])[-1], context.get_shape(node.input[1])[-2]
    ConvOp.version_11(context, node)
    node.set_attr("group", channels // per_group)


def _select(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Converts Select of floats to Where.

    The converter prefers a sum of products with 0 and 1, which onnxruntime computes faster. It is
    NaN where what is not selected is NaN or infinite, as in `where(x > 0, log(x), 0)`.
    """
    from tf2onnx.onnx_opset.controlflow import Select

    # onnxruntime lacks Where for some other dtypes, whose products are exact.
    node.set_attr("handles_nan", int(_dtype(context, node.output[0]).kind == "f"))
    Select.version_9(context, node)


HANDLERS: dict[str, tuple[Callable, list]] = {
    "Conv2DBackpropInput": (_conv_transpose, []),
    "Conv3D": (_conv3d, []),
    "Conv3DBackpropInputV2": (_conv_transpose, []),
    "Erfc": (_erfc, []),
    "Expm1": (_expm1, []),
    "FloorDiv": (_floor_div, []),
    "FloorMod": (_floor_mod, []),
    "Log1p": (_log1p, []),
    "OneHot": (_one_hot, []),
    "Select": (_select, []),
    "SelectV2": (_select, []),
}


def _rewrite_sign_bits(context: "Graph", nodes: list["Node"]) -> list["Node"]:
    """Replaces the sign bit that argmax reads of floats, whose bits ONNX has no operator for.

    Keras tells -0.0 from 0.0 by it. Their reciprocals are the two infinities.
    """
    for node in [node for node in nodes if node.type == "BitwiseAnd"]:
        masks = [entry for entry in node.inputs if entry is not None and entry.is_const()]
        casts = [entry for entry in node.inputs if entry is not None and entry.type == "Bitcast"]
        if not masks or not casts or np.any(masks[0].get_tensor_value(False) != SIGN_BIT):
            continue
        x = casts[0].input[0]
        if _dtype(context, x) != np.float32:
            continue
        zero, one = (_constant(context, np.array(value, np.float32)) for value in (0, 1))
        below = _node(context, "Less", x, zero)  # the reciprocal of -inf is -0.0
        inverse_below = _node(context, "Less", _node(context, "Div", one, x), zero)
        negative = _node(context, "Or", below, inverse_below)
        bit, none = (_constant(context, np.array(value, np.int32)) for value in (SIGN_BIT, 0))
        _replace(context, node, "Where", negative, bit, none)
    return context.get_nodes()


REWRITERS = [_rewrite_sign_bits]


def _node(context: "Graph", kind: str, *inputs: str, **attributes: Any) -> str:
    """Adds an ONNX node; returns the name of its output."""
    return context.make_node(kind, list(inputs), attr=attributes).output[0]


def _replace(context: "Graph", node: "Node", kind: str, *inputs: str, **attributes: Any) -> None:
    """Replaces a node by an ONNX node with the same name and output."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    context.remove_node(node.name)
    context.make_node(
        kind,
        list(inputs),
        attr=attributes,
        name=node.name,
        outputs=node.output,
        shapes=shapes,
        dtypes=dtypes,
    )


def _constant(context: "Graph", value: np.ndarray) -> str:
    from tf2onnx import utils

    return context.make_const(utils.make_name("constant"), value).output[0]


def _one(context: "Graph", node: "Node") -> str:
    """Adds a 1 of the dtype of a node's output."""
    return _constant(context, np.ones((), _dtype(context, node.output[0])))


def _cast(context: "Graph", source: str, kind: int) -> str:
    return source if context.get_dtype(source) == kind else _node(context, "Cast", source, to=kind)


def _unsqueeze(context: "Graph", source: str, *axes: int) -> str:
    return _node(context, "Unsqueeze", source, _constant(context, np.array(axes, np.int64)))


def _dtype(context: "Graph", source: str) -> np.dtype:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(context.get_dtype(source))
