"""Outputs of an exported file have the names of what they are."""

import collections

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import packnet_tf
from helpers.export_helpers import answers
from helpers.pack_helpers import mlp_trunk
from packnet_tf.export import export_onnx


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_a_head_that_gives_a_dict_keeps_its_names(kind, outputs, tmp_path):
    features = keras.Input((8,))
    given = {
        "kind": layers.Dense(3, activation="softmax")(features),
        "class_logits": layers.Dense(2, activation="softmax")(features),
        "box": layers.Dense(4)(features),
    }
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", keras.Model(features, kind(given)))
    net.commit()
    export_onnx(net, "one", tmp_path / "m.onnx", outputs=outputs)
    names = [output.name for output in onnx.load(tmp_path / "m.onnx").graph.output]
    box = "box" if outputs == "logits" else "box_probabilities"
    assert sorted(names) == sorted([box, "kind", "class_logits"])
    x = np.random.default_rng(0).random((5, 12)).astype("float32")
    expected = net.task_model("one")(x)
    found = dict(zip(names, answers(tmp_path / "m.onnx", x), strict=True))
    for name in set(found) & set(expected):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_logits_beside_their_probabilities_are_exported(tmp_path):
    features = keras.Input((8,))
    logits_of = layers.Dense(3)(features)
    both = {"logits": logits_of, "probabilities": layers.Softmax()(logits_of)}
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", keras.Model(features, both))
    net.commit()
    for outputs in ("logits", "probabilities"):
        assert export_onnx(net, "one", tmp_path / f"{outputs}.onnx", outputs=outputs) < 1e-5
