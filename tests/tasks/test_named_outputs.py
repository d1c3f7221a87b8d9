"""A head that returns a dict keeps the names of its outputs, from `fit` to the exported file."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import data, mlp_trunk
from packnet_tf.export import export_onnx

LOSSES = {"species": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "age": "mse"}


@keras.saving.register_keras_serializable("test_named_outputs")
class Both(layers.Layer):
    """A head of two parts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.species, self.age = layers.Dense(3), layers.Dense(1)

    def build(self, shape):
        self.species.build(shape)
        self.age.build(shape)

    def call(self, features):
        return {"species": self.species(features), "age": self.age(features)}


def as_model():
    inputs = keras.Input((8,))
    return keras.Model(inputs, {"species": layers.Dense(3)(inputs), "age": layers.Dense(1)(inputs)})


@pytest.mark.slow
@pytest.mark.parametrize("head", [as_model, Both])
def test_names_of_outputs_are_kept(head, tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    x, y = data(mlp_trunk())
    labels = {"species": y, "age": np.linspace(0, 1, len(y), dtype=np.float32)}
    model = net.add_task("birds", head())
    model.compile("sgd", LOSSES, metrics={"species": "accuracy"}, jit_compile=False)
    logs = model.fit(
        x, labels, epochs=2, verbose=0, callbacks=[packnet_tf.PackNetCallback(0.5, 1)]
    ).history
    assert {"species_loss", "age_loss", "species_accuracy"} <= set(logs)
    assert set(model.output) == {"species", "age"}
    expected = net.task_model("birds").predict(x, verbose=0)

    net.save(tmp_path / "pack.keras")
    model.save(tmp_path / "model.keras")
    again = packnet_tf.load(tmp_path / "pack.keras")
    others = (again.task_model("birds"), keras.saving.load_model(tmp_path / "model.keras"))
    for other in others:
        found = other.predict(x, verbose=0)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    found = again.unpack("birds").predict(x, verbose=0)
    assert set(found) == set(expected)

    export_onnx(again, "birds", tmp_path / "birds.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "birds.onnx")
    names = [output.name for output in session.get_outputs()]
    assert sorted(names) == ["age", "species"]
    (given,) = session.get_inputs()
    for name, value in zip(names, session.run(None, {given.name: x}), strict=True):
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_names_of_outputs_are_kept_by_the_trainer():
    net = packnet_tf.PackNet(mlp_trunk())
    x, y = data(mlp_trunk())
    labels = {"species": y, "age": np.linspace(0, 1, len(y), dtype=np.float32)}
    weights = {"species": np.ones(len(y), np.float32), "age": np.zeros(len(y), np.float32)}
    trainer = packnet_tf.PackTrainer(
        net, epochs=1, retrain_epochs=1, loss=LOSSES, metrics={"species": "accuracy"}, verbose=False
    )
    data_of_both = (x, labels, weights)
    history = trainer.fit(packnet_tf.Task("birds", as_model(), data_of_both, data_of_both))
    row = history["birds"]["epochs"][0]
    assert {"species_loss", "val_species_accuracy"} <= set(row)
    assert row["val_age_loss"] == 0.0
