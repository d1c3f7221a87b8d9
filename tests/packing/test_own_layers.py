"""Layers of one's own in a trunk: what a copy would lose, or mix up, is refused or kept."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf

registered = keras.saving.register_keras_serializable
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def trunk_of(*parts):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), *parts, layers.Dense(3)], name="trunk")


@registered("own_layers")
class Residual(layers.Layer):
    """Its configuration holds layers as they are, which Keras writes for it."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        make = keras.saving.deserialize_keras_object
        self.inner = [part if isinstance(part, layers.Layer) else make(part) for part in inner]

    def call(self, x):
        for part in self.inner:
            x = x + part(x)
        return x

    def get_config(self):
        return {**super().get_config(), "inner": self.inner}


@registered("own_layers")
class Scaled(layers.Dense):
    """Its configuration lacks an argument."""

    def __init__(self, *args, scale=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = scale

    def call(self, x):
        return super().call(x) * self.scale


@registered("own_layers")
class Constant(layers.Layer):
    """Its values are no weights."""

    def build(self, shape):
        self.values = ops.convert_to_tensor(np.random.normal(size=shape[1:]), "float32")

    def call(self, x):
        return x * self.values


@registered("own_layers")
class Noisy(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(ops.shape(x))


class Broken(layers.Layer):
    def call(self, x):
        return x

    def get_config(self):
        return {"units": self.units}


@registered("own_layers")
class Factor(layers.Layer):
    def build(self, shape):
        self.left = self.add_weight(shape=(shape[-1], 3), name="left")

    def call(self, x):
        return ops.matmul(x, self.left)


def test_layers_within_a_configuration_are_copied(tmp_path):
    trunk = trunk_of(Residual([layers.Dense(4), layers.LayerNormalization()]))
    before = trunk.predict(X, verbose=0)
    net = packnet_tf.PackNet(trunk)
    assert np.array_equal(trunk.predict(X, verbose=0), before)
    assert np.array_equal(net.preview().predict(X, verbose=0), before)
    head = Residual([layers.Dense(3)])
    held = []
    for name in ("one", "two"):
        held.append(net.add_task(name, head))
        assert len(held[-1].head.trainable_variables) == 2
        net.prune(0.5)
        net.commit()
    assert held[0].head.inner[0] is not held[1].head.inner[0]
    answers = net.task_model("one").predict(X, verbose=0)
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert np.array_equal(loaded.task_model("one").predict(X, verbose=0), answers)


@pytest.mark.parametrize("part", [lambda: Scaled(3, scale=3.0), Constant])
def test_what_a_copy_would_lose_is_refused(part):
    packnet_tf.register_packed(Scaled)
    with pytest.raises(ValueError, match=r"a copy of it.* answers otherwise .*get_config\(\) must"):
        packnet_tf.PackNet(trunk_of(part()))


def test_a_layer_that_never_answers_alike_is_not_compared():
    packnet_tf.PackNet(trunk_of(Noisy()))


def test_a_configuration_that_fails_names_the_layer():
    with pytest.raises(TypeError, match=r"'broken' \(Broken\) cannot be made .* no attribute 'un"):
        packnet_tf.PackNet(trunk_of(Broken(name="broken")))


def test_an_operation_that_calls_a_function_names_the_remedy():
    inputs = keras.Input((4,))
    doubled = ops.fori_loop(0, 3, lambda _, x: 2 * x, inputs)
    with pytest.raises(TypeError, match=r"\(ForiLoop\) cannot be made .* a layer of your own"):
        packnet_tf.PackNet(keras.Model(inputs, layers.Dense(3)(doubled)))


def test_a_lambda_around_a_function_that_is_not_registered_is_refused_with_the_remedy():
    preprocess = keras.applications.resnet.preprocess_input
    with pytest.raises(ValueError, match=r"'given'.* x = preprocess\(inputs\)"):
        packnet_tf.PackNet(trunk_of(layers.Lambda(preprocess, name="given")))


def test_a_misspelt_weight_is_refused():
    packnet_tf.register_packed(Factor, variables=["lefft"])
    with pytest.raises(ValueError, match="Factor was registered with the weight 'lefft'"):
        packnet_tf.PackNet(trunk_of(Factor()))
    packnet_tf.register_packed(Factor, variables=["left"])  # as a corrected cell of a notebook
    assert "factor" in str(list(packnet_tf.PackNet(trunk_of(Factor())).state.weights))


def test_two_classes_of_one_name_are_told_apart(tmp_path):
    """Whichever was registered last, and also a class that is called like one of Keras."""

    def times(factor, package):
        class Dense(layers.Dense):
            def call(self, x):
                return super().call(factor * x)

        packnet_tf.register_packed(Dense if package is None else registered(package)(Dense))
        return Dense

    answers = {}
    classes = [layers.Dense, times(2.0, "package_a"), times(3.0, "package_b"), times(4.0, None)]
    for number, cls in enumerate(classes):
        net = packnet_tf.PackNet(trunk_of(cls(4)))
        answers[number] = net.preview().predict(X, verbose=0)
        net.save(tmp_path / f"{number}.keras")
    for number, expected in answers.items():
        loaded = packnet_tf.load(tmp_path / f"{number}.keras")
        assert np.array_equal(loaded.preview().predict(X, verbose=0), expected)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_with_lora_is_refused_wherever_it_is(frozen):
    dense, table = layers.Dense(4), layers.Embedding(9, 4)
    trunk = keras.Sequential([keras.Input((4,)), dense, layers.Dense(3)])
    if not frozen:
        trunk = keras.Sequential([keras.Input((5,), dtype="int32"), table, layers.Dense(3)])
    part = dense if frozen else table
    part.enable_lora(2)
    part.trainable = not frozen
    with pytest.raises(ValueError, match="it is LoRA-enabled"):
        packnet_tf.PackNet(trunk)


def test_what_is_free_within_a_frozen_model_is_free_in_a_loaded_pack(tmp_path):
    base = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4, name="b"),
         layers.BatchNormalization(name="norm")], name="base",
    )  # fmt: skip
    base.trainable = False
    base.get_layer("b").trainable = base.get_layer("norm").trainable = True
    net = packnet_tf.PackNet(trunk_of(base))
    net.save(tmp_path / "pack.keras")
    names = []
    for pack in (net, packnet_tf.load(tmp_path / "pack.keras")):
        model = pack.add_task("one", layers.Dense(2))
        names.append([v.path.split("/")[-2:] for v in model.trunk.trainable_variables])
    assert names[0] == names[1]
    assert ["norm", "gamma"] in names[0]
