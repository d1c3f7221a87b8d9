"""Bit-packed owners of weights and places of overlays, and the ONNX nodes that read them.

The nodes are standard operators on constants, so ONNX Runtime computes them once, when it loads
the file. Each byte of codes is an index into a table of 256 rows. A row tells, for each code in the
byte, whether the task sees the weight. Only this table differs between tasks.
"""

import math
from collections.abc import Sequence

import numpy as np

from packnet_tf.export.graph.builder import GraphBuilder


def width(tasks: int) -> int:
    """Returns the bits per weight: 2 for up to four tasks, 4 for up to 16, 8 beyond."""
    return 2 if tasks <= 4 else 4 if tasks <= 16 else 8


def codes_of(owner: np.ndarray, tasks: int) -> np.ndarray:
    """Returns owner - 1 for owners 1 to `tasks`, else 0: a free weight has code 0 and value 0."""
    return np.where((owner >= 1) & (owner <= tasks), owner - 1, 0).astype(np.uint8)


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Packs codes into bytes, with the first code in the lowest bits.

    Args:
        codes: uint8 or bool array of any shape, below 2 ** bits.
        bits: 1, 2, 4 or 8.

    Returns:
        uint8 array (ceil(codes.size * bits / 8),).

    Example:
        >>> pack_codes(np.array([1, 2, 3, 0, 1]), 2)
        array([57,  1], dtype=uint8)
    """
    flat = np.asarray(codes, np.uint8).reshape(-1)
    each = 8 // bits
    rows = np.pad(flat, (0, -flat.size % each)).reshape(-1, each)
    packed = np.zeros(len(rows), np.uint8)
    for place in range(each):
        packed |= rows[:, place] << (bits * place)
    return packed


def table(bits: int, chosen: Sequence[int]) -> np.ndarray:
    """Tells for each byte value which of its codes are chosen, as bool (256, 8 // bits)."""
    shifts = bits * np.arange(8 // bits)
    codes = (np.arange(256)[:, None] >> shifts) & (2**bits - 1)
    return np.isin(codes, chosen)


def masks(
    builder: GraphBuilder,
    packed: str,
    bits: int,
    shapes: Sequence[tuple[int, ...]],
    chosen: Sequence[int],
) -> list[str]:
    """Adds the nodes that compute which weights have one of the chosen codes.

    Args:
        builder: the `GraphBuilder` of the task's graph.
        packed: name of the tensor with the packed codes of all kernels; each kernel starts a new
            byte.
        bits: bits per code.
        shapes: shapes of the kernels.
        chosen: the codes to select.

    Returns:
        The names of the masks, bool tensors of these shapes.
    """
    from onnx import TensorProto

    rows = builder.constant(table(bits, chosen))
    index = builder.node("Cast", packed, to=TensorProto.INT32)
    seen = builder.node("Gather", rows, index)  # a row of the table for each byte
    sizes = [math.prod(shape) for shape in shapes]
    parts = builder.split(seen, [-(-size * bits // 8) for size in sizes])
    masks = []
    for part, size, shape in zip(parts, sizes, shapes, strict=True):
        if size * bits % 8:  # the last byte is not full
            part = builder.node("Reshape", part, builder.constant(np.array([-1])))
            ends = [builder.constant(np.array([end])) for end in (0, size)]
            part = builder.node("Slice", part, *ends)
        masks.append(builder.node("Reshape", part, builder.constant(np.array(shape))))
    return masks


def masks_of_gaps(
    builder: GraphBuilder, gaps: str, count: int, shapes: Sequence[tuple[int, ...]]
) -> list[str]:
    """Adds the nodes that compute masks from the gaps between their True values.

    Args:
        builder: the `GraphBuilder` of the task's graph.
        gaps: name of the uint8 tensor with the gaps of all kernels together: for each True value
            the number of False ones before it, in bytes of 255 and a last byte below that.
        count: number of bytes.
        shapes: shapes of the kernels.

    Returns:
        The names of the masks, bool tensors of these shapes.
    """
    from onnx import TensorProto, helper

    start = builder.constant(np.array(0))
    steps = builder.node("Cast", gaps, to=TensorProto.INT32)
    ends = builder.node("Less", steps, builder.constant(np.array(255, np.int32)))
    ones = builder.node("Cast", ends, to=TensorProto.INT32)
    before = builder.node("CumSum", ones, start, exclusive=1)
    places = builder.node("Add", builder.node("CumSum", steps, start), before)
    sizes = [math.prod(shape) for shape in shapes]
    # A byte of 255 marks one more value, at the end. ONNX Runtime does not compute Compress, which
    # would leave such bytes out, when it loads a graph.
    end = builder.constant(np.array(sum(sizes), np.int32))
    places = builder.node("Where", ends, places, end)
    flags = [
        builder.node(
            "ConstantOfShape",
            builder.constant(np.array([size])),
            value=helper.make_tensor("", TensorProto.BOOL, [1], [flag]),
        )
        for flag, size in ((False, sum(sizes) + 1), (True, count))
    ]
    chosen = builder.node("ScatterElements", flags[0], places, flags[1])
    *parts, _ = builder.split(chosen, [*sizes, 1])
    return [
        builder.node("Reshape", part, builder.constant(np.array(shape)))
        for part, shape in zip(parts, shapes, strict=True)
    ]


def masked(builder: GraphBuilder, values: str, seen: str, dtype: np.dtype) -> str:
    """Adds the node `where(seen, values, 0)`; returns the name of its output."""
    return builder.node("Where", seen, values, builder.constant(np.zeros((), dtype)))


def spread(builder: GraphBuilder, values: str, seen: str, shape: tuple[int, ...]) -> str:
    """Adds the nodes that put consecutive values at the positions of a mask.

    Args:
        builder: the `GraphBuilder` of the task's graph.
        values: name of a flat array with one value per True in the mask, and one more.
        seen: name of the mask, a bool tensor of shape `shape`.
        shape: shape of the kernel.

    Returns:
        The name of a tensor of this shape; where the mask is False, its values have no meaning.
    """
    from onnx import TensorProto

    flat = builder.node("Reshape", seen, builder.constant(np.array([-1])))
    ones = builder.node("Cast", flat, to=TensorProto.INT32)
    places = builder.node("CumSum", ones, builder.constant(np.array(0)), exclusive=1)
    found = builder.node("Gather", values, places)
    return builder.node("Reshape", found, builder.constant(np.array(shape)))
