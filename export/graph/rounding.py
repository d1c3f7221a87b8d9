"""Rounds weights together, so that their errors do not add up."""

import math
from collections.abc import Container
from typing import TYPE_CHECKING, Any

import numpy as np

from packnet_tf.export.graph.layer_inputs import Feeds, LayerInputs, typical, windows

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

POSITIONS = 8192  # positions in the outputs of a layer that count, over all inputs
WIDEST = 8192  # weights per output; about six matrices of their products take 0.5 GB each
# Added to the mean square of every input, as a share of their mean: for rounding, and for weights
# that make up for errors of earlier layers. Smaller ones fit the inputs, and lose on others.
DAMPING, FIT_DAMPING = 0.1, 10.0
BLOCK = 64  # weights after which those of later blocks are updated
PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0}  # a Gemm that is a dense layer


def round_kernels(
    quantized: "ModelProto",
    source: "ModelProto",
    feeds: Feeds,
    largest: int,
    fixed: Container[str] = (),
) -> None:
    """Rounds the kernels and biases of layers again, in a graph of quantize_static.

    To round each weight to the nearest integer lets errors add up where inputs are alike in all
    images, such as those of a background. Here convolutions and dense layers are rounded in their
    order, each so that its outputs are close to those of the float32 graph, given the outputs of
    the layers that are rounded already. The bias takes the mean of what remains, except after a
    MatMul, whose bias is a node of its own. Scales stay as they are, and weights that are 0 stay
    0. A layer whose inputs are too large for their products in float32 keeps its weights.

    Args:
        quantized: a graph with DequantizeLinear nodes; its constants are changed in place.
        source: the float32 graph that it was made from. Nodes have the same names.
        feeds: typical inputs.
        largest: the largest magnitude of an integer.
        fixed: names of integers that are right already; only the bias of their layer changes.
    """
    from onnx import numpy_helper

    floats = {tensor.name: tensor for tensor in source.graph.initializer}
    held = {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    twins = {node.name: node for node in source.graph.node if node.name}

    def parts(name: str) -> tuple[str, np.ndarray] | None:
        """Returns the name of the integers of a constant, and its scales."""
        node = makers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in held:
            return None
        return node.input[0], numpy_helper.to_array(held[node.input[1]]).astype(np.float64)

    def store(name: str, integers: np.ndarray) -> None:
        held[name].CopyFrom(numpy_helper.from_array(integers, name))

    layers, rounded = [], set[str]()
    for node in quantized.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.name not in twins:
            continue
        constants = [found for found in map(parts, node.input[1:]) if found is not None]
        names, attributes = {name for name, _ in constants}, _attributes(node)
        if len(constants) < len(node.input) - 1 or names & rounded:
            continue  # a kernel that is calculated, or that an earlier layer has too
        kernel, *biases = (floats[name] for name in twins[node.name].input[1:])
        dense = node.op_type != "Conv"
        turned = dense and not attributes.get("transB", 0)  # inputs first
        inputs = kernel.dims[0] if turned else math.prod(kernel.dims[1:])
        matrix = len(kernel.dims) == 2 and PLAIN.items() <= (PLAIN | attributes).items()
        if inputs <= WIDEST and (matrix or not dense):
            layers.append((node, kernel, biases, constants, turned))
            rounded |= names
    some = typical(source, feeds)
    exact_inputs = LayerInputs(source, some, [twins[node.name].input[0] for node, *_ in layers])
    given_inputs = LayerInputs(quantized, some, [node.input[0] for node, *_ in layers])
    for node, tensor, biases, constants, turned in layers:
        pair = exact_inputs.next(), given_inputs.next()
        kernel = numpy_helper.to_array(tensor)
        kernel = kernel.T if turned else kernel
        exact, given = (
            windows(values, kernel.shape, _attributes(node), POSITIONS) for values in pair
        )
        (name, scale), *others = constants
        if name in fixed:
            integers = numpy_helper.to_array(held[name])
            shift = mean_loss(kernel, integers.T if turned else integers, scale, exact, given)
        else:
            found = rounded_kernel(kernel, scale, exact, given, largest, bool(biases))
            if found is None:
                continue
            integers, shift = found
            store(name, integers.T if turned else integers)
        for bias, (name, scale) in zip(biases, others, strict=True):
            limits = np.iinfo(np.int32)
            steps = np.rint((numpy_helper.to_array(bias) + shift) / scale)
            store(name, np.clip(steps, limits.min, limits.max).astype(np.int32))


def rounded_kernel(
    kernel: np.ndarray,
    scale: np.ndarray,
    exact: np.ndarray,
    given: np.ndarray,
    largest: int,
    has_bias: bool,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rounds a kernel so that it makes of the inputs that it is given what it makes of exact ones.

    Args:
        kernel: float32 (outputs, inputs, ...), the inputs of one group.
        scale: the steps of the outputs.
        exact: inputs in float32 (groups, inputs of a weight, positions).
        given: the same inputs, as the rounded network computes them.
        largest: the largest magnitude of an integer.
        has_bias: whether a bias takes the difference of the means.

    Returns:
        The int8 kernel, and what to add to the bias, (outputs,). None if the products of the inputs
        exceed float32.
    """
    groups, inputs, positions = exact.shape
    weights = kernel.reshape(groups, -1, inputs).astype(np.float64)
    steps = np.broadcast_to(scale.reshape(-1, 1), (len(kernel), 1)).reshape(groups, -1, 1)
    means = [part.mean(2, keepdims=True, dtype=np.float64) for part in (exact, given)]
    if has_bias:
        exact, given = (
            part - mean.astype(np.float32) for part, mean in zip((exact, given), means, strict=True)
        )
    with np.errstate(over="ignore", invalid="ignore"):
        moments, lacking = (
            np.matmul(part, given.transpose(0, 2, 1)).astype(np.float64) / positions
            for part in (given, exact - given)
        )
    if not (np.isfinite(moments).all() and np.isfinite(lacking).all()):
        return None
    # The weights that make of the given inputs what these make of the exact ones; with least
    # squares, and a penalty for weights that differ.
    wanted = (weights @ lacking).transpose(0, 2, 1)
    fitted = weights + np.linalg.solve(_damped(moments, FIT_DAMPING), wanted).transpose(0, 2, 1)
    fitted = np.where(weights == 0, 0.0, fitted)
    integers = rounded_together(fitted / steps, moments, largest)
    shift = weights @ means[0] - (integers * steps) @ means[1]
    return integers.reshape(kernel.shape).astype(np.int8), shift.reshape(-1)


def mean_loss(
    kernel: np.ndarray,
    integers: np.ndarray,
    scale: np.ndarray,
    exact: np.ndarray,
    given: np.ndarray,
) -> np.ndarray:
    """Returns what outputs lack on average, (outputs,), when integers stand for a kernel.

    Args:
        kernel, integers: (outputs, inputs, ...).
        scale, exact, given: as for `rounded_kernel`.
    """
    groups, inputs, _ = exact.shape
    weights, rounded = (
        values.reshape(groups, -1, inputs).astype(np.float64) for values in (kernel, integers)
    )
    steps = np.broadcast_to(scale.reshape(-1, 1), (len(kernel), 1)).reshape(groups, -1, 1)
    means = [part.mean(2, keepdims=True, dtype=np.float64) for part in (exact, given)]
    return (weights @ means[0] - (rounded * steps) @ means[1]).reshape(-1)


def rounded_together(values: np.ndarray, moments: np.ndarray, largest: int) -> np.ndarray:
    """Rounds rows of weights, each weight so as to make up for the errors of those before it.

    This is GPTQ (Frantar et al., 2022, arXiv 2210.17323, section 3).

    Args:
        values: the weights in steps (groups, rows, inputs); those that are 0 stay 0.
        moments: mean products of the inputs (groups, inputs, inputs).
        largest: the largest magnitude of an integer.

    Example:
        >>> alike = np.ones((1, 4, 4))  # the outputs are multiples of the rows' sums
        >>> rounded_together(np.full((1, 1, 4), 0.3), alike, 127)
        array([[[0., 0., 1., 0.]]])
    """
    inverse = np.linalg.inv(_damped(moments, DAMPING))
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    free, rest = values != 0, values.copy()
    integers = np.zeros_like(rest)
    for start in range(0, values.shape[2], BLOCK):
        block = slice(start, start + BLOCK)
        errors = np.zeros_like(rest[:, :, block])
        for place in range(errors.shape[2]):
            at = start + place
            nearest = np.clip(np.rint(rest[:, :, at]), -largest, largest)
            integers[:, :, at] = np.where(free[:, :, at], nearest, 0)
            error = (rest[:, :, at] - integers[:, :, at]) / upper[:, None, at, at]
            rest[:, :, at : block.stop] -= error[:, :, None] * upper[:, None, at, at : block.stop]
            errors[:, :, place] = error
        rest[:, :, block.stop :] -= errors @ upper[:, block, block.stop :]
    return integers


def rounded_by_sums(
    values: np.ndarray, channel: int, owner: np.ndarray | None = None, largest: int = 127
) -> np.ndarray:
    """Rounds weights so that their sums, per output channel and owner, are within half a step.

    Without typical inputs, the best guess is that the inputs of a channel are alike, as those of a
    background are. A few weights, those that are closest to it, are rounded to the second nearest
    integer.

    Args:
        values: the weights in steps; those that are 0 stay 0.
        channel: the axis of the output channels.
        owner: the weights' owners; by default they have one. A task sees all weights of an owner or
            none.
        largest: the largest magnitude of an integer.

    Example:
        >>> rounded_by_sums(np.array([[0.4, 0.3, 0.4, 7.0]]), channel=0)
        array([[1., 0., 0., 7.]])
    """
    rows = np.moveaxis(values, channel, 0)
    exact = rows.reshape(len(rows), -1)
    owners = np.ones_like(exact) if owner is None else np.moveaxis(owner, channel, 0)
    owners = owners.reshape(exact.shape)
    integers = np.clip(np.rint(exact), -largest, largest)
    short = exact - integers
    numbers = np.unique(owners)
    places = np.searchsorted(numbers, owners).astype(np.min_scalar_type(len(numbers)))
    lacks = np.zeros((len(rows), len(numbers)))
    starts = np.zeros((len(rows), len(numbers)), int)  # in a row sorted by owner
    for place in range(len(numbers)):
        here = places == place
        lacks[:, place] = np.rint(np.where(here & (exact != 0), short, 0).sum(1, dtype=np.float64))
        starts[:, place + 1 :] += here.sum(1, keepdims=True)
    sign = np.take_along_axis(np.sign(lacks).astype(integers.dtype), places, axis=1)
    can = (exact != 0) & (np.abs(integers + sign) <= largest)
    order = np.lexsort((np.where(can, -short * sign, np.inf), places), axis=1)
    owner_at = np.take_along_axis(places, order, axis=1)
    rank = np.arange(exact.shape[1]) - np.take_along_axis(starts, owner_at, axis=1)
    changes = rank < np.abs(np.take_along_axis(lacks, owner_at, axis=1))
    change = np.zeros(exact.shape, bool)
    np.put_along_axis(change, order, changes, axis=1)
    integers += np.where(change & can, sign, 0)
    return np.moveaxis(integers.reshape(rows.shape), 0, channel)


def halved_by_sums(values: np.ndarray, channel: int, owner: np.ndarray) -> np.ndarray:
    """Rounds weights to float16 so that their sums, per output channel and owner, stay close.

    From the largest to the smallest, each weight takes the error of the one before it, so that the
    last error is one of the smallest weight. See `rounded_by_sums`.

    Args:
        values: the weights, float32; those that are 0 stay 0, and those beyond 65504 become 65504.
        channel: the axis of the output channels.
        owner: the weights' owners.
    """
    rows = np.moveaxis(values, channel, 0)
    exact = rows.reshape(len(rows), -1)
    owners = np.moveaxis(owner, channel, 0).reshape(exact.shape)
    order = np.lexsort((-np.abs(exact), owners), axis=1)
    exact, owners = (np.take_along_axis(each, order, axis=1) for each in (exact, owners))
    halves = np.zeros(exact.shape, np.float16)
    error, largest = np.zeros(len(rows), np.float32), np.finfo(np.float16).max
    for at in range(exact.shape[1]):
        error[owners[:, at] != owners[:, at - 1]] = 0
        whole = exact[:, at] + error
        halves[:, at] = np.where(exact[:, at] == 0, 0, np.clip(whole, -largest, largest))
        error = np.where(np.abs(whole) <= largest, whole - halves[:, at], np.float32(0))
    found = np.empty_like(halves)
    np.put_along_axis(found, order, halves, axis=1)
    return np.moveaxis(found.reshape(rows.shape), 0, channel)


def _damped(moments: np.ndarray, share: float) -> np.ndarray:
    """Adds a share of the mean of the diagonal to it, so that the matrix has an inverse."""
    size = moments.shape[1]
    mean = np.einsum("gii->g", moments)[:, None, None] / size
    return moments + np.where(mean > 0, share * mean, 1.0) * np.eye(size)


def _attributes(node: "NodeProto") -> dict[str, Any]:
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
