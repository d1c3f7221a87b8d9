"""Promise 1: once committed, a task's logits are the same, bit for bit, whatever comes later."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

import packnet_tf
from helpers.cases import POLICIES, slow
from helpers.pack_helpers import (
    SPARSE,
    claims,
    compiled,
    conv_trunk,
    data,
    fit,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    same,
    values,
)


class Remembered:
    """A committed task's answers: held model, new view and plain copy must go on giving them."""

    def __init__(self, net, name, held, x):
        self.net, self.name, self.held, self.x = net, name, held, x
        self.view = net.task_model(name)
        self.logits = logits(held, x)
        self.variables = values(self.view.variables)
        self.moments = 0
        assert np.isfinite(self.logits).all()
        self.check()

    def check(self):
        self.moments += 1
        plain = self.net.unpack(self.name)
        for model in (self.held, self.view, self.net.task_model(self.name), plain):
            assert np.array_equal(logits(model, self.x), self.logits)
        # Biases and normalisation included, moving statistics too.
        for before, variable in zip(self.variables, self.view.variables, strict=True):
            if variable.name.startswith("packed_") or variable.name.endswith("_owner"):
                continue  # these hold all tasks
            assert np.array_equal(keras.ops.convert_to_numpy(variable), before)


class CheckAlways(keras.callbacks.Callback):
    """Checks memories during training, and right after the prune."""

    def __init__(self, *memories):
        super().__init__()
        self.memories = memories

    def on_epoch_end(self, epoch, logs=None):
        for memory in self.memories:
            memory.check()

    def on_train_batch_end(self, batch, logs=None):
        for memory in self.memories:
            assert np.array_equal(logits(memory.held, memory.x), memory.logits)


def assert_moved(before, after, where):
    """Every layer's claim has been trained."""
    for path, mask in where.items():
        assert mask.any()
        assert not np.array_equal(before[path][mask], after[path][mask]), path


def learn(net, name, x, y, optimizer, *memories, ratio=0.5, **kwargs):
    """Packs a task with `fit`; the memories are checked at every step."""
    model = net.add_task(name, layers.Dense(3, name="logits"))
    claimed = {path: claim > 0 for path, claim in claims(net).items()}
    start, first = kernels(net), logits(model, x)
    compiled(model, optimizer, **kwargs)
    callback = packnet_tf.PackNetCallback(ratio, prune_epoch=1)
    fit(model, x, y, CheckAlways(*memories), callback, epochs=2)
    assert_moved(start, kernels(net), claimed)
    assert not np.array_equal(logits(model, x), first)
    for memory in memories:
        memory.check()
    return model


def check_contract(trunk, optimizer, policy=None, **kwargs):
    """A task, then another through `fit`, then a third: the first is compared all the time."""
    net = packnet_tf.PackNet(trunk, **(policy or {}))
    x, y = data(trunk)
    one = pack_task(net, "one", seed=1)
    first = Remembered(net, "one", one, x)
    two = learn(net, "two", x, y, optimizer, first, **kwargs)
    second = Remembered(net, "two", two, x)
    pack_task(net, "three", ratio=0.0, seed=3)
    first.check()
    second.check()
    assert first.moments == 1 + 2 + 1 + 1  # at its commit; epochs; after task two; after three
    assert all(set(np.unique(owner)) == {1, 2, 3} for owner in owners(net).values())
    assert not np.array_equal(first.logits, second.logits)


OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "SGD weight_decay": lambda: optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda: optimizers.Adam(0.05),
    "AdamW": lambda: optimizers.AdamW(0.05, weight_decay=0.3),
    "Lion": lambda: optimizers.Lion(0.05, weight_decay=0.1),
    "Adafactor": lambda: optimizers.Adafactor(0.05, weight_decay=0.1),
    "RMSprop": lambda: optimizers.RMSprop(0.05, momentum=0.9, centered=True),
    "use_ema": lambda: optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5),
    "ema_overwrite_frequency": lambda: optimizers.SGD(
        0.1, momentum=0.9, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "global_clipnorm": lambda: optimizers.Adam(0.05, global_clipnorm=0.1),
    "clipnorm": lambda: optimizers.SGD(0.1, momentum=0.9, clipnorm=0.1),
    "clipvalue": lambda: optimizers.SGD(0.1, momentum=0.9, clipvalue=0.01),
    "gradient_accumulation_steps": lambda: optimizers.Adam(
        0.05, weight_decay=0.1, gradient_accumulation_steps=2
    ),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1)
    ),
}


# Quick are those that change whole variables after the gradient, each in a way of its own.
QUICK = ["AdamW", "Lion", "ema_overwrite_frequency", "global_clipnorm"]


@pytest.mark.parametrize("name", [*QUICK, *slow(*sorted({*OPTIMIZERS} - {*QUICK}))])
def test_nothing_is_forgotten_under_any_optimizer(name):
    # Keras's Adafactor divides 0 by 0 where a row and a column of a kernel get no gradient at
    # all, which is bound to happen in tiny convolutions and behind dead ReLUs.
    trunk = mlp_trunk("tanh") if name == "Adafactor" else conv_trunk()
    check_contract(trunk, OPTIMIZERS[name]())


@pytest.mark.parametrize(
    ("name", "setting"),
    {
        "MaxNorm": {"kernel_constraint": keras.constraints.MaxNorm(0.5)},
        "NonNeg": {"kernel_constraint": keras.constraints.NonNeg()},
        "UnitNorm": {"kernel_constraint": keras.constraints.UnitNorm()},
        "L2": {"kernel_regularizer": keras.regularizers.L2(0.1), "bias_regularizer": "l1"},
    }.items(),
)
def test_nothing_is_forgotten_under_constraints_and_regularizers(name, setting):
    inputs = keras.Input((6, 6, 1), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv", **setting)(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Flatten(name="flat")(x))
    trunk = keras.Model(inputs, layers.Dense(8, name="fc", **setting)(x), name="trunk")
    check_contract(trunk, optimizers.SGD(0.05, momentum=0.9))


@pytest.mark.parametrize("policy", ["mixed_float16", *slow("mixed_bfloat16", "float64")])
def test_nothing_is_forgotten_in_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    check_contract(conv_trunk(), optimizers.Adam(0.05, weight_decay=0.1))


@pytest.mark.parametrize(
    "how",
    [
        *slow({"jit_compile": True}, {"steps_per_execution": 3}),
        {"run_eagerly": True},
        {"jit_compile": True, "steps_per_execution": 2},
    ],
    ids=str,
)
def test_nothing_is_forgotten_however_the_step_is_run(how):
    check_contract(conv_trunk(), optimizers.AdamW(0.05, weight_decay=0.1), **how)


@pytest.mark.parametrize(("biases", "norms", "restart"), POLICIES)
def test_nothing_is_forgotten_under_any_policy(biases, norms, restart):
    policy = {"biases": biases, "norms": norms, "restart": restart}
    check_contract(conv_trunk(), optimizers.SGD(0.3, momentum=0.9), policy)


def test_nothing_is_forgotten_in_any_trunk(trunk):
    check_contract(trunk, optimizers.SGD(0.1, momentum=0.9))


def test_nothing_is_forgotten_when_every_task_is_fitted():
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    memories = []
    for number, (name, ratio) in enumerate({"one": 0.5, "two": 0.5, "three": 0.0}.items()):
        model = learn(net, name, x, (y + number) % 3, optimizers.Adam(0.05), *memories, ratio=ratio)
        memories.append(Remembered(net, name, model, x))
    for memory in memories:
        memory.check()


def test_predictions_of_a_task_are_the_same_after_later_tasks():
    """`predict` compiles the view anew; the answers are the same bits."""
    trunk = conv_trunk()
    net = packed(trunk, one=0.5)
    x, _ = data(trunk, size=20)
    before = net.task_model("one").predict(x, batch_size=8, verbose=0)
    pack_task(net, "two", seed=5)
    pack_task(net, "three", seed=9)
    assert np.array_equal(net.task_model("one").predict(x, batch_size=8, verbose=0), before)
    assert np.array_equal(net.unpack("one").predict(x, batch_size=8, verbose=0), before)


def test_nothing_is_forgotten_when_momentum_is_reused_across_tasks():
    """One optimizer for the trunk's kernels, the same variables in all tasks, and all its momentum.

    Momentum of the first task moves the trainable kernels of the second one at once, also where
    the first task owns the weights.
    """
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    for_kernels = optimizers.SGD(0.2, momentum=0.95, weight_decay=0.05)
    memories = []

    def train(model, labels, for_others):
        shared = [w.trainable for w in net.state.weights.values()]
        others = [v for v in model.trainable_variables if all(v is not s for s in shared)]

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                loss = SPARSE(labels, model(x, training=True))
            gradients = tape.gradient(loss, [*shared, *others])
            for_kernels.apply(gradients[: len(shared)], shared)
            for_others.apply(gradients[len(shared) :], others)

        for _ in range(3):
            step()
            for memory in memories:
                assert np.array_equal(logits(memory.held, x), memory.logits)
                assert np.array_equal(logits(memory.view, x), memory.logits)

    for number, name in enumerate(["one", "two", "three"]):
        model = net.add_task(name, layers.Dense(3))
        claimed = {path: claim > 0 for path, claim in claims(net).items()}
        start = kernels(net)
        for_others = optimizers.SGD(0.2, momentum=0.9)
        train(model, (y + number) % 3, for_others)
        assert_moved(start, kernels(net), claimed)
        net.prune(0.5)
        for memory in memories:
            memory.check()
        train(model, (y + number) % 3, for_others)
        net.commit()
        for memory in memories:
            memory.check()
        memories.append(Remembered(net, name, model, x))
    assert len(for_kernels.variables) == 2 + 3
    assert all(np.any(keras.ops.convert_to_numpy(m)) for m in for_kernels.variables[2:])


def test_nothing_is_forgotten_when_momentum_is_copied_by_hand():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk, biases="per_task")
    x, y = data(trunk)
    one = learn(net, "one", x, y, optimizers.SGD(0.1, momentum=0.9))
    memory = Remembered(net, "one", one, x)
    former = one.optimizer
    two = net.add_task("two", layers.Dense(3))
    start = kernels(net)
    optimizer = optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(two.trainable_variables)
    for old, new in zip(former.variables[2:], optimizer.variables[2:], strict=True):
        new.assign(old)
    assert any(np.any(value) for value in values(optimizer.variables[2:]))
    compiled(two, optimizer)
    claimed = {path: claim > 0 for path, claim in claims(net).items()}
    fit(two, x, 2 - y, CheckAlways(memory), epochs=1)
    assert_moved(start, kernels(net), claimed)
    net.prune(0.5)
    memory.check()
    fit(two, x, 2 - y, CheckAlways(memory), epochs=1)
    net.commit()
    memory.check()


def test_nothing_is_forgotten_when_ema_weights_are_swapped_in():
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    memory = Remembered(net, "one", pack_task(net, "one"), x)
    model = compiled(
        net.add_task("two", layers.Dense(3)), optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
    )
    start = kernels(net)
    claimed = {path: claim > 0 for path, claim in claims(net).items()}
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callback = packnet_tf.PackNetCallback(0.5, prune_epoch=1)
    fit(model, x, y, swap, CheckAlways(memory), callback, epochs=3, validation_data=(x, y))
    assert_moved(start, kernels(net), claimed)
    memory.check()


def test_a_diverged_task_reaches_no_other_and_is_refused(trunk):
    net = packnet_tf.PackNet(trunk)
    x, _ = data(trunk)
    memory = Remembered(net, "one", pack_task(net, "one"), x)
    model = net.add_task("two", layers.Dense(3))
    path = next(iter(net.state.weights))
    for weight in net.state.weights.values():
        weight.trainable.assign(np.full(weight.trainable.shape, np.nan, "float32"))
    assert np.isnan(logits(model, x)).any()
    memory.check()
    claimed = net.capacity()[path]["claimed"]
    refusals = {
        lambda: net.prune(0.5): (
            f"Cannot prune task 'two': layer '{path}': {claimed} of {claimed} claimed weights are "
            "NaN: training diverged, and magnitudes cannot rank them. Restore earlier weights or "
            "train again with a lower learning rate."
        ),
        net.commit: (
            f"Cannot commit task 'two': training diverged, weights of '{path}' are NaN or "
            "infinite. Restore earlier weights, or net.discard() the task and train it again with "
            "a lower learning rate."
        ),
    }
    before = [*owners(net).values(), *claims(net).values()]
    for verb, text in refusals.items():
        with pytest.raises(ValueError) as error:
            verb()
        assert str(error.value) == text
        assert same([*owners(net).values(), *claims(net).values()], before)
        memory.check()
    net.discard()
    memory.check()
    pack_task(net, "two")
    assert np.isfinite(logits(net.task_model("two"), x)).all()
    memory.check()


def test_a_task_trained_to_nan_by_fit_is_refused_and_reaches_no_other():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    memory = Remembered(net, "one", pack_task(net, "one"), x)
    model = compiled(net.add_task("two", layers.Dense(3)))
    bad = np.where(np.arange(24)[:, None] == 5, np.nan, x).astype("float32")
    with pytest.raises(ValueError, match=r"Cannot prune task 'two': layer 'first': .* diverged"):
        fit(model, bad, y, packnet_tf.PackNetCallback(0.5, 1))
    memory.check()
    assert net.tasks == ("one",)


def test_later_tasks_learn():
    """Without this, tests of forgetting could not fail: a later task reaches full accuracy."""
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    for number, name in enumerate(["one", "two"]):
        labels = (y + number) % 3
        model = compiled(net.add_task(name, layers.Dense(3)), optimizers.Adam(0.05))
        fit(model, x, labels, packnet_tf.PackNetCallback(0.5, 12), epochs=24, batch_size=24)
        assert np.array_equal(np.argmax(logits(net.task_model(name), x), axis=1), labels)


def test_inactive_weights_do_not_answer_for_a_task():
    """Changing what a task does not own leaves it; changing what it owns does not."""
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5, two=0.5)
    x, _ = data(trunk)
    view = net.task_model("one")
    before = logits(view, x)
    for weight in net.state.weights.values():
        owner, value = values([weight.owner, weight.packed])
        weight.packed.assign(np.where(owner == 1, value, np.nan))
    assert np.array_equal(logits(view, x), before)
    jolt(net.add_task("three", layers.Dense(3)))
    assert np.array_equal(logits(view, x), before)
    for weight in net.state.weights.values():
        owner, value = values([weight.owner, weight.packed])
        weight.packed.assign(np.where(owner == 1, value + 1, value))
    assert not np.array_equal(logits(view, x), before)
