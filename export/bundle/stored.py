"""How a bundle stores packed weights: in float32, float16 or int8."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from packnet_tf.export.graph.builder import GraphBuilder
from packnet_tf.export.graph.rounding import halved_by_sums, rounded_by_sums

SMALL = 1 / 64  # share of all packed weights that stay in float16


def precisions_of(sizes: Sequence[int], precision: str, small: float = SMALL) -> list[str]:
    """Returns the precisions in which the packed kernels of a graph are stored.

    In an int8 bundle the smallest kernels are stored in float16. They are the first layers and
    depthwise convolutions, whose rounding costs most: on Tiny Darknet 14 of 16 answers that differ
    from Keras are due to 0.5 % of the weights.

    Args:
        sizes: the number of weights in each kernel that the graph reads. A kernel that it reads in
            two layouts is stored, and counted, twice.
        precision: that of the bundle.
        small: share of all weights that stay in float16.

    Example:
        >>> precisions_of([100, 1000, 9000], "int8")
        ['float16', 'int8', 'int8']
    """
    if precision != "int8":
        return [precision] * len(sizes)
    up_to_each = [sum(other for other in sizes if other <= size) for size in sizes]
    return ["float16" if part <= small * sum(sizes) else "int8" for part in up_to_each]


def encode(
    kernel: np.ndarray,
    precision: str,
    owner: np.ndarray,
    channel: int | None = None,
    least: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Converts a kernel to the form in which it is stored.

    Weights that are 0 stay exactly 0.

    Args:
        kernel: the weights in the graph's layout, float32.
        precision: "float32"; "float16", in which numbers beyond 65504 become 65504; or "int8", with
            a scale per output channel.
        owner: the weights' owners. Sums over the weights of one are nearly those of float32, see
            `rounded_by_sums`.
        channel: the axis of the output channels; by default the last of matrices and the first of
            convolutions.
        least: the smallest scales for int8, of the shape of the scales.

    Returns:
        The stored array, and the scales for int8, float16, of a shape that broadcasts.

    Raises:
        ValueError: int8 cannot hold weights as large as 8 million.

    Example:
        >>> weights = np.array([[0.5, -2.0], [0.25, 1.0]], np.float32)
        >>> encode(weights, "int8", np.ones((2, 2), np.uint8))[0]
        array([[ 127, -127],
               [  63,   64]], dtype=int8)
    """
    if precision == "float32":
        return kernel, None
    if channel is None:
        channel = output_axis(kernel.ndim)
    if precision == "float16":
        return halved_by_sums(kernel, channel, owner), None
    others = tuple(axis for axis in range(kernel.ndim) if axis != channel)
    largest = np.abs(kernel).max(others, keepdims=True, initial=0.0)
    scale = _rounded_up(largest / 127)
    if np.isinf(scale).any():
        raise ValueError(
            f"A packed weight is {largest.max():.3g}, too large for int8. Write "
            'precision="float32".'
        )
    if least is not None:
        scale = np.maximum(scale, least)
    steps = kernel / scale.astype(np.float32)
    return rounded_by_sums(steps, channel, owner).astype(np.int8), scale


def output_axis(axes: int) -> int:
    """Returns the axis of the output channels: the last of matrices, the first of convolutions."""
    return 1 if axes == 2 else 0


def _rounded_up(scale: np.ndarray) -> np.ndarray:
    """Rounds scales up to float16, so that no weight exceeds 127 steps; at least the smallest."""
    with np.errstate(over="ignore"):
        rounded = scale.astype(np.float16)
    short = rounded.astype(np.float32) < scale
    rounded[short] = np.nextafter(rounded[short], np.float16(np.inf))
    return np.maximum(rounded, np.finfo(np.float16).smallest_subnormal)


def decode(stored: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """Returns the float32 weights that a graph computes from what `encode` returns."""
    weights = stored.astype(np.float32)
    return weights if scale is None else weights * scale.astype(np.float32)


def decoder(
    builder: GraphBuilder,
    stored: np.ndarray,
    scale: np.ndarray | None,
    put: Callable[[np.ndarray], str],
) -> Callable[[str], str]:
    """Returns a function that adds the nodes of `decode`; it takes and returns names.

    Args:
        builder: the `GraphBuilder` of the task's graph.
        stored, scale: what `encode` returns.
        put: stores an array; returns its name.
    """
    from onnx import TensorProto

    def nodes(name: str) -> str:
        if stored.dtype == np.float32:
            return name
        name = builder.node("Cast", name, to=TensorProto.FLOAT)
        if scale is None:
            return name
        return builder.node("Mul", name, builder.node("Cast", put(scale), to=TensorProto.FLOAT))

    return nodes


def seen_weights(
    values: np.ndarray,
    owner: np.ndarray,
    sees: Collection[int],
    parts: Sequence[tuple[int, int]],
    precision: str,
) -> np.ndarray:
    """Returns a kernel as a task of a bundle sees it, float32.

    Args:
        values, owner: the weights and their owners, in the graph's layout.
        sees: numbers of the tasks whose weights the task sees.
        parts: the first and the last task of each shared file; each was stored by itself.
        precision: the kernel's, see `precisions_of`.
    """
    kernel = np.zeros(values.shape, np.float32)
    for first, last in parts:
        here = (owner >= first) & (owner <= last)
        own = decode(*encode(np.where(here, values, np.float32(0)), precision, owner))
        kernel = np.where(here & np.isin(owner, list(sees)), own, kernel)
    return kernel
