"""Graphs to work out by hand, which compute with whole numbers: equal means equal."""

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import numpy_helper

from packnet_tf.export.simplify import Removed, remove_dead_channels

IMAGE = "N,2,4,4"


def whole(*shape, seed=0):
    """Whole numbers, none of them 0."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 4, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def dead(array, *channels, axis=0):
    """The array with 0 for some channels."""
    array = array.copy()
    np.moveaxis(array, axis, 0)[list(channels)] = 0
    return array


def floats(*values):
    return np.array(values, np.float32)


def ints(*values):
    return np.array(values, np.int64)


def graph(nodes, y, x=IMAGE, opset=17, **constants):
    """A model from x to y, of the given shapes, with nodes in ONNX's text format.

    It gets those of the constants that its nodes read.
    """
    head = f'<ir_version: 8, opset_import: ["": {opset}]>'
    model = onnx.parser.parse_model(f"{head} g (float[{x}] x) => (float[{y}] y) {{ {nodes} }}")
    reads = {name for node in model.graph.node for name in node.input}
    for name in constants.keys() & reads:
        model.graph.initializer.append(numpy_helper.from_array(constants[name], name))
    onnx.checker.check_model(model, full_check=True)
    return model


def answers(model, batch=3):
    """The model's outputs for one batch of whole numbers."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    [entry] = session.get_inputs()
    shape = [size if isinstance(size, int) else 4 for size in entry.shape[1:]]
    return session.run(None, {entry.name: whole(batch, *shape, seed=9)})


def simplified(model, rtol=0.0):
    """Simplifies; answers with what went and the constants left. The outputs must stay."""
    before, size = answers(model), model.ByteSize()
    removed = remove_dead_channels(model)
    onnx.checker.check_model(model, full_check=True)
    for old, new in zip(before, answers(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=rtol * np.abs(old).max())
    assert removed.bytes == size - model.ByteSize()
    left = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert remove_dead_channels(model) == Removed(0, 0, 0)
    return removed, left


def stays(model):
    """Whether the model is not changed at all."""
    before = model.SerializeToString(deterministic=True)
    assert remove_dead_channels(model) == Removed(0, 0, 0)
    return model.SerializeToString(deterministic=True) == before


def between(nodes, bias=(1, 0, 2), window=3, extra="", y="N,2,M,M", **constants):
    """A convolution whose channel 1 has a kernel of 0, nodes from h to k, and a convolution."""
    return graph(
        f"h = Conv(x, w, b) {nodes} y = Conv{extra}(k, v, c)",
        y,
        w=dead(whole(3, 2, 1, 1), 1),
        b=floats(*bias),
        v=whole(2, 3, window, window, seed=1),
        c=whole(2, seed=2),
        **constants,
    )


PADDED = "<pads = [1, 1, 1, 1]>"
