"""Changes of layers that no training makes are kept with the head, and refused in the trunk."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


def opened(head=None):
    """A pack with a committed task and an open one."""
    net = packnet_tf.PackNet(
        keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(8, activation="relu", name="first"),
                layers.LayerNormalization(name="norm"),
                layers.Dropout(0.5, name="drop"),
                layers.Dense(6, trainable=False, name="fixed"),
            ]
        )
    )
    net.add_task("good", layers.Dense(3))
    net.prune(0.5)
    net.commit()
    return net, net.add_task("open", head or layers.Dense(3))


def activation(model):
    model.head.activation = keras.activations.softmax


def part(model):
    model.head.layers[0].activation = keras.activations.tanh


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("head", "change"),
    [
        (None, activation),
        (lambda: keras.Sequential([layers.Dense(4), layers.Dense(3)]), part),
        (None, lambda model: model.head.enable_lora(2)),
        (None, lambda model: model.head.quantize("int8")),
    ],
    ids=["activation", "part", "lora", "int8"],
)
def test_a_task_has_its_head_as_it_is_when_it_is_committed(head, change, tmp_path):
    net, model = opened(head and head())
    change(model)
    net.save(tmp_path / "pack.keras")
    expected = model.predict(X, verbose=0)
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert loaded.tasks == net.tasks
    np.testing.assert_array_equal(loaded.open_model.predict(X, verbose=0), expected)
    net.commit()
    net.save(tmp_path / "pack.keras")
    for pack in (net, packnet_tf.load(tmp_path / "pack.keras")):
        np.testing.assert_array_equal(pack.task_model("open").predict(X, verbose=0), expected)


CHANGES = {
    "first (activation)": lambda trunk: setattr(
        trunk.get_layer("first"), "activation", keras.activations.tanh
    ),
    "norm (epsilon)": lambda trunk: setattr(trunk.get_layer("norm"), "epsilon", 1.0),
    "fixed (lora_rank": lambda trunk: trunk.get_layer("fixed").enable_lora(2),
    "fixed (dtype": lambda trunk: trunk.get_layer("fixed").quantize("int8"),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_changed_trunk_is_neither_trained_nor_committed_nor_saved(said, tmp_path):
    net, model = opened()
    model.compile("sgd", "mse")
    CHANGES[said](model.trunk)
    with pytest.raises(RuntimeError, match="Cannot train: layers of task 'open'"):
        model.fit(X, X[:, :3])
    for verb, do in (("commit", net.commit), ("save", lambda: net.save(tmp_path / "pack.keras"))):
        with pytest.raises(RuntimeError, match=rf"Cannot {verb}.* layers of task 'open'") as info:
            do()
        assert said in str(info.value)
    assert not list(tmp_path.iterdir())
    net.discard()
    net.save(tmp_path / "pack.keras")
    assert packnet_tf.load(tmp_path / "pack.keras").tasks == ("good",)


@pytest.mark.parametrize("overlay", [None, 0.5])
def test_what_does_not_change_answers_may_change(overlay):
    net, model = opened()
    net.discard()
    model = net.add_task("open", layers.Dense(3), overlay=overlay)
    model.trunk.get_layer("drop").rate = 0.1
    model.trunk.get_layer("first").trainable = False
    expected = model.predict(X, verbose=0)
    if overlay:
        net.prune(0.5)
        expected = model.predict(X, verbose=0)
    net.commit()
    np.testing.assert_array_equal(net.task_model("open").predict(X, verbose=0), expected)


@keras.saving.register_keras_serializable("changes")
class Forgetful(layers.Layer):
    def __init__(self, units=3, scale=1.0, **options):
        super().__init__(**options)
        self.units, self.scale = units, scale

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x):
        return self.scale * (x @ self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Nameless(layers.Layer):
    """As layers of KerasHub within others."""

    def __init__(self, units):
        super().__init__()
        self.inner = layers.Dense(len(units))

    def call(self, x):
        return self.inner(x)


@keras.saving.register_keras_serializable("changes")
class Outer(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.part = Nameless([object()] * 3)

    def call(self, x):
        return self.part(x)


def test_layers_within_others_need_no_configuration():
    with pytest.raises(NotImplementedError):
        Nameless([object()]).get_config()
    inputs = keras.Input((5,))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(4)(Outer()(inputs))))
    model = net.add_task("one", layers.Dense(2))
    expected = model.predict(X, verbose=0)
    net.commit()
    np.testing.assert_array_equal(net.task_model("one").predict(X, verbose=0), expected)


def test_a_built_head_of_which_a_copy_answers_otherwise_is_refused():
    net, _ = opened()
    net.discard()
    head = Forgetful(scale=30.0)
    head.build((None, 6))
    with pytest.raises(
        ValueError, match=r"'open' with its head: a copy of it.*get_config\(\) must"
    ):
        net.add_task("open", head)
    assert net.open_model is None
    kept = Forgetful()
    kept.build((None, 6))
    net.add_task("open", kept)


def test_an_attribute_that_the_copy_of_an_unbuilt_head_lacks_is_warned_of():
    net, _ = opened()
    net.discard()
    with pytest.warns(UserWarning, match=r"other values of scale in '\w+' \(Forgetful\)"):
        net.add_task("open", Forgetful(scale=30.0))
