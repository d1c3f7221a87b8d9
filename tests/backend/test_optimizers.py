"""Retraining starts with a fresh optimizer state, whatever "fresh" means for the optimizer."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import packnet_tf
from helpers.pack_helpers import compiled, data, fit, mlp_trunk, same, values
from packnet_tf import reset_optimizer

OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.1, momentum=0.9),
    "Adam": lambda: optimizers.Adam(0.1, amsgrad=True),
    "Adagrad": lambda: optimizers.Adagrad(0.1, initial_accumulator_value=0.5),
    "Ftrl": lambda: optimizers.Ftrl(0.1, initial_accumulator_value=0.25),
    "Nadam": lambda: optimizers.Nadam(0.1),
    "Lion": lambda: optimizers.Lion(0.1),
    "Adafactor": lambda: optimizers.Adafactor(0.1),
    "use_ema": lambda: optimizers.SGD(0.1, use_ema=True),
    "accumulation": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.1), dynamic_growth_steps=2
    ),
    "schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)),
}


def variables():
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in [(3, 4), (4,)]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_reset_optimizer_is_as_one_just_built(name):
    fresh, used, trained = OPTIMIZERS[name](), OPTIMIZERS[name](), variables()
    fresh.build(trained)
    used.build(trained)
    for step in range(3):
        used.apply([np.full(v.shape, 1.0 + step, "float32") for v in trained], trained)
    assert not same(values(used.variables), values(fresh.variables))
    kept, objects = values(trained), [id(variable) for variable in used.variables]
    reset_optimizer(used)
    assert same(values(used.variables), values(fresh.variables))
    assert [id(variable) for variable in used.variables] == objects
    assert same(values(trained), kept)
    # And it goes on exactly as a new one would.
    copies = variables()
    for copy, variable in zip(copies, trained, strict=True):
        copy.assign(variable)
    fresh_on_copies = OPTIMIZERS[name]()
    gradients = [np.full(v.shape, 0.5, "float32") for v in trained]
    for _ in range(2):
        used.apply(gradients, trained)
        fresh_on_copies.apply(gradients, copies)
    assert same(values(trained), values(copies))


def test_the_learning_rate_of_the_moment_stays():
    optimizer, trained = optimizers.Adam(0.1), variables()
    optimizer.build(trained)
    optimizer.learning_rate = 0.003
    reset_optimizer(optimizer)
    assert float(optimizer.learning_rate) == float(np.float32(0.003))


def test_an_optimizer_that_is_not_built_is_fresh_already():
    optimizer = optimizers.Adam(0.1)
    reset_optimizer(optimizer)
    assert not optimizer.built


class StateAtPrune(keras.callbacks.Callback):
    """The optimizer's values as the first batch after the prune finds them, and just before."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.now, batch) == (self.epoch, 0):
            self.values = values(self.model.optimizer.variables)
            self.trained = [keras.Variable(v) for v in values(self.model.trainable_variables)]

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch - 1:
            self.before = values(self.model.optimizer.variables)


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "use_ema", "loss_scale"])
def test_the_optimizer_is_fresh_after_the_prune(name):
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)), OPTIMIZERS[name]())
    state = StateAtPrune(1)
    fit(model, *data(model), packnet_tf.PackNetCallback(0.5, prune_epoch=1), state)
    fresh = OPTIMIZERS[name]()
    fresh.build(state.trained)
    assert same(state.values, values(fresh.variables))
    assert not same(state.before, state.values)


def test_the_optimizer_is_fresh_after_the_prune_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)), optimizers.Adam(0.01))
    state = StateAtPrune(1)
    callback = packnet_tf.PackNetCallback(0.5, prune_epoch=1, retrain_learning_rate=0.001)
    fit(model, *data(model), callback, state)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    assert float(model.optimizer.inner_optimizer.learning_rate) == float(np.float32(0.001))
    assert net.tasks == ("one",)
    momentums = [value for value in state.values if value.ndim]
    assert momentums
    assert not any(value.any() for value in momentums)
    assert any(value.any() for value in state.before if value.ndim)


class Falling(optimizers.schedules.LearningRateSchedule):
    """A schedule that cannot say how it was made."""

    def __call__(self, step):
        return 0.1 / (keras.ops.cast(step, "float32") + 1)


@pytest.mark.parametrize("rate", [Falling(), lambda: 0.1], ids=["schedule", "function"])
def test_an_optimizer_that_cannot_be_reset_is_refused_before_training(rate):
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)), optimizers.SGD(rate))
    x, y = data(model.trunk)
    before = values(model.variables)
    with pytest.raises(ValueError) as error:
        fit(model, x, y, packnet_tf.PackNetCallback(0.5, 1))
    assert str(error.value).startswith(
        "Retraining begins with a fresh optimizer, and Keras cannot make this SGD anew from its "
        "get_config(): "
    )
    assert str(error.value).endswith(
        "Give its learning rate as a number, or as a LearningRateSchedule that has get_config() "
        "and is registered with @keras.saving.register_keras_serializable(); the same holds for "
        "an optimizer of your own."
    )
    assert same(values(model.variables), before)
