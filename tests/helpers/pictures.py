"""A pack's contents, to compare before and after a verb."""

import keras

from packnet_tf.packing.policy import own_weights


def picture(net):
    """All that the verbs may change, arrays as bytes."""
    model = net.open_model
    variables = [v for weight in net.state.weights.values() for v in weight.variables]
    variables += [v for _, v in own_weights(net.state.trunk)]
    variables += [] if model is None else model.variables
    return {
        "tasks": net.tasks,
        "open": None if model is None else model.task_name,
        "owned": [list(record.owned) for record in net.state.committed],
        "results": [dict(record.results) for record in net.state.committed],
        "values": [keras.ops.convert_to_numpy(v).tobytes() for v in variables],
        "flags": [] if model is None else [v.trainable for v in model.variables],
        "trains": [] if model is None else [v.path for v in model.trainable_variables],
        "pruned": model is not None and net.state.open.phase,
    }
