"""The scores of a router in ONNX, after the features that it looks at."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.export.graph.walk import defined, free_names, rename
from packnet_tf.routing.gaussians import TaskGaussian, log_volume

if TYPE_CHECKING:
    from onnx import ModelProto

OUTPUTS = ("task", "scores")
NONE = -1  # the number of no task


def append_router(
    proto: "ModelProto", gaussians: Sequence[TaskGaussian], numbers: Sequence[int]
) -> None:
    """Replaces the features that a model gives by the task and the scores of each example.

    Args:
        proto: an `onnx.ModelProto` with one output, float32 (batch, n), changed in place.
        gaussians: one per task.
        numbers: the numbers of these tasks, which the output `task` gives.
    """
    from onnx import GraphProto, TensorProto, helper, numpy_helper

    graph, added = proto.graph, GraphProto()
    [features] = graph.output
    constants = {**parameters(gaussians), "router_numbers": np.array(numbers, np.int64)}
    make = helper.make_node
    added.node.extend(
        [
            make("Unsqueeze", [features.name, "router_first"], ["router_features"]),
            make("Sub", ["router_features", "router_means"], ["router_centred"]),  # task, batch, n
            make("MatMul", ["router_centred", "router_directions"], ["router_along"]),
            make("Mul", ["router_centred", "router_centred"], ["router_lengths"]),
            make("ReduceSum", ["router_lengths", "router_last"], ["router_length"], keepdims=0),
            make("Mul", ["router_along", "router_along"], ["router_squares"]),
            make("ReduceSum", ["router_squares", "router_last"], ["router_inside"], keepdims=0),
            make("Sub", ["router_length", "router_inside"], ["router_difference"]),
            make("Max", ["router_difference", "router_zero"], ["router_outside"]),
            make("Mul", ["router_outside", "router_precisions"], ["router_noise"]),
            make("Mul", ["router_squares", "router_weights"], ["router_weighted"]),
            make("ReduceSum", ["router_weighted", "router_last"], ["router_signal"], keepdims=0),
            make("Add", ["router_noise", "router_signal"], ["router_distances"]),
            make("Sub", ["router_offsets", "router_distances"], ["router_by_task"]),
            make("Transpose", ["router_by_task"], ["router_likelihoods"], perm=[1, 0]),
            make("ArgMax", ["router_likelihoods"], ["router_best"], axis=1, keepdims=1),
            make("Gather", ["router_thresholds", "router_best"], ["router_threshold"]),
            make("Gather", ["router_spreads", "router_best"], ["router_spread"]),
            make("Sub", ["router_likelihoods", "router_threshold"], ["router_above"]),
            make("Div", ["router_above", "router_spread"], ["scores"]),
            make("GatherElements", ["scores", "router_best"], ["router_score"], axis=1),
            make("Less", ["router_score", "router_zero"], ["router_none"]),
            make("Gather", ["router_numbers", "router_best"], ["router_number"]),
            make("Where", ["router_none", "router_no", "router_number"], ["router_column"]),
            make("Squeeze", ["router_column", "router_second"], ["task"]),
        ]
    )
    added.initializer.extend(numpy_helper.from_array(x, name) for name, x in constants.items())
    free = free_names(graph)
    inner = {*defined(added)} - {*OUTPUTS}
    rename(added, {name: free(name) for name in sorted(inner)})
    graph.node.extend(added.node)
    graph.initializer.extend(added.initializer)
    batch = features.type.tensor_type.shape.dim[0]
    rows = batch.dim_value or batch.dim_param or None
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("task", TensorProto.INT64, [rows]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, len(gaussians)]),
        ]
    )


def parameters(gaussians: Sequence[TaskGaussian]) -> dict[str, np.ndarray]:
    """Returns the constants of the graph by name.

    Tasks with fewer directions than others get directions of 0. All log-likelihoods are taken
    relative to the largest threshold: float32 would round the large numbers.

    Args:
        gaussians: one per task.
    """
    size, count = len(gaussians[0].mean), max(len(each.variances) for each in gaussians)
    directions = np.zeros((len(gaussians), size, count))
    weights = np.zeros((len(gaussians), 1, count))
    for place, each in enumerate(gaussians):
        own = len(each.variances)
        directions[place, :, :own] = each.directions
        weights[place, 0, :own] = 0.5 / each.variances.astype(np.float64)
    volumes = [log_volume(each, size - len(each.variances)) for each in gaussians]
    thresholds = np.array([each.threshold for each in gaussians])
    floats = {
        "means": np.stack([each.mean for each in gaussians])[:, None],
        "directions": directions,
        "weights": weights,
        "precisions": np.array([[0.5 / each.noise] for each in gaussians]),
        "offsets": np.array([[-0.5 * volume - thresholds.max()] for volume in volumes]),
        "thresholds": thresholds - thresholds.max(),
        "spreads": np.array([each.spread for each in gaussians]),
        "zero": np.zeros(()),
    }
    integers = {"first": [0], "second": [1], "last": [2], "no": NONE}
    return {f"router_{name}": np.asarray(x, np.float32) for name, x in floats.items()} | {
        f"router_{name}": np.array(x, np.int64) for name, x in integers.items()
    }
