"""Moving statistics are those of the network that answers, whatever trained it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf
from helpers.cases import slow
from packnet_tf.normalization.following import momentum_after
from packnet_tf.normalization.seen_data import SeenData
from packnet_tf.normalization.statistics import update_statistics

any_backend = pytest.mark.any_backend
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RANDOM = np.random.default_rng(0)
PATTERNS = RANDOM.normal(size=(4, 8, 8, 3))
LABELS = RANDOM.integers(0, 4, 320).astype("int32")
IMAGES = (PATTERNS[LABELS] + RANDOM.normal(size=(320, 8, 8, 3)) + 3).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Centring(layers.Layer):
    """A user's own layer, which moves a statistic at a momentum that is written into it."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, inputs, training=None):
        if not training:
            return inputs - self.mean
        mean = ops.mean(inputs, axis=tuple(range(len(inputs.shape) - 1)))
        self.mean.assign(0.999 * self.mean + 0.001 * mean)
        return inputs - mean


@keras.saving.register_keras_serializable("tests")
class RunningCentring(Centring):
    """One that subtracts what it has so far in training, too."""

    def call(self, inputs, training=None):
        if training:
            super().call(inputs, training=True)
        return inputs - self.mean


@keras.saving.register_keras_serializable("tests")
class OwnNorm(layers.BatchNormalization):
    """A user's subclass."""


def trunk(momentum, norm=layers.BatchNormalization):
    keras.utils.set_random_seed(1)
    parts = [keras.Input((8, 8, 3))]
    for filters in (16, 16):
        parts += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            norm(momentum=momentum) if norm is not Centring else Centring(),
            layers.ReLU(),
        ]
    return keras.Sequential([*parts, layers.GlobalAveragePooling2D()])


def agreement(model, plain, batch_size=32):
    """Accuracies of a committed task in inference mode, and of its weights by batches."""
    answered = np.asarray(model.predict(IMAGES, verbose=0)).argmax(-1) == LABELS
    plain.trainable = True
    hits = []
    for start in range(0, len(LABELS), batch_size):
        rows = slice(start, start + batch_size)
        with keras.StatelessScope():
            logits = ops.convert_to_numpy(plain(IMAGES[rows], training=True))
        hits.append(logits.argmax(-1) == LABELS[rows])
    return answered.mean(), np.concatenate(hits).mean()


def by_fit(net, head, epochs, batch_size, **compiled):
    model = net.add_task("a", head)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, **compiled)
    packing = packnet_tf.PackNetCallback(0.5, epochs - 1)
    model.fit(IMAGES, LABELS, batch_size, epochs, callbacks=[packing], verbose=0)


def by_loop(net, head, epochs, batch_size, **compiled):
    """A loop of one's own, which tells nobody its data."""
    model = net.add_task("a", head)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, **compiled)
    for epoch in range(epochs):
        if epoch == epochs - 1:
            net.prune(0.5)
        for start in range(0, len(LABELS), batch_size):
            rows = slice(start, start + batch_size)
            model.train_on_batch(IMAGES[rows], LABELS[rows])
    net.commit()


def by_trainer(net, head, epochs, batch_size):
    packnet_tf.PackTrainer(
        net, epochs=epochs - 1, retrain_epochs=1, learning_rate=0.1, prune=0.5,
        batch_size=batch_size, verbose=False,
    ).fit([packnet_tf.Task("a", head, (IMAGES, LABELS))])  # fmt: skip


def check(net, batch_size=32):
    inference, batches = agreement(net.task_model("a"), net.unpack("a"), batch_size)
    assert batches > 0.7  # it has learnt something
    assert abs(inference - batches) <= 0.01 or inference > batches
    return inference


@pytest.mark.parametrize("momentum", [*slow(0.9, 0.99), 0.999])
@pytest.mark.parametrize("batch_size", [*slow(16), 64])  # 20 and 5 steps an epoch
@pytest.mark.parametrize("train", [by_fit, by_loop, by_trainer])
def test_a_committed_task_answers_as_its_weights_do_by_batches(momentum, batch_size, train):
    net = packnet_tf.PackNet(trunk(momentum))
    train(net, layers.Dense(4), 3, batch_size)
    check(net, batch_size)


@any_backend
@pytest.mark.parametrize("norm", [layers.BatchNormalization, OwnNorm, Centring])
def test_statistics_of_any_layer_are_measured_on_the_data_of_fit(norm):
    net = packnet_tf.PackNet(trunk(0.999, norm))
    by_fit(net, layers.Dense(4), 3, 32)
    check(net)


@any_backend
def test_norms_after_a_layer_with_a_moving_average_are_measured_as_it_answers():
    inputs = keras.Input((8,))
    x = layers.BatchNormalization(name="norm")(layers.Dense(4)(RunningCentring()(inputs)))
    model = keras.Model(inputs, x)
    images = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    packnet_tf.update_statistics(model, images)
    found = np.asarray(model.predict(images, verbose=0))
    assert np.abs(found.mean(axis=0)).max() < 0.5
    assert np.abs(found.std(axis=0) - 1).max() < 0.5


@pytest.mark.parametrize(
    "compiled",
    [*slow({"jit_compile": True}), {"steps_per_execution": 4}],
    ids=["XLA", "several steps at once"],
)
def test_it_holds_however_the_step_is_compiled(compiled):
    net = packnet_tf.PackNet(trunk(0.999))
    by_fit(net, layers.Dense(4), 3, 32, **compiled)
    check(net)


def test_it_holds_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        net = packnet_tf.PackNet(trunk(0.999))
        by_fit(net, layers.Dense(4), 3, 32)
    finally:
        keras.config.set_dtype_policy("float32")
    inference, batches = agreement(net.task_model("a"), net.unpack("a"))
    assert abs(inference - batches) <= 0.01


@any_backend
def test_it_holds_for_normalisation_within_a_head():
    net = packnet_tf.PackNet(trunk(0.999))
    head = keras.Sequential([layers.Dense(8), layers.BatchNormalization(momentum=0.999)])
    head.add(layers.Dense(4))
    by_fit(net, head, 3, 32)
    check(net)


@any_backend
def test_shared_norms_are_those_of_the_first_task():
    net = packnet_tf.PackNet(trunk(0.999), norms="shared", restart="zero")
    by_fit(net, layers.Dense(4), 3, 32)
    check(net)


@any_backend
def test_validation_during_training_sees_the_network_of_now():
    net = packnet_tf.PackNet(trunk(0.999))
    model = net.add_task("a", layers.Dense(4))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, metrics=["accuracy"])
    history = model.fit(
        IMAGES, LABELS, epochs=3, validation_data=(IMAGES, LABELS), verbose=0
    ).history
    # An average of some steps while weights still move fast; by momentum 0.999 it is at chance.
    assert history["val_accuracy"][-1] >= history["accuracy"][-1] - 0.05


@any_backend
def test_statistics_begin_anew_at_a_prune_and_count_batches():
    net = packnet_tf.PackNet(trunk(0.999))
    model = net.add_task("a", layers.Dense(4))
    model.compile("sgd", LOSS)
    model.fit(IMAGES, LABELS, batch_size=64, epochs=1, verbose=0)
    assert float(ops.convert_to_numpy(model.batches_seen)) == 5
    model(IMAGES)  # looking moves nothing
    assert float(ops.convert_to_numpy(model.batches_seen)) == 5
    net.prune(0.5)
    assert float(ops.convert_to_numpy(model.batches_seen)) == 0


def test_the_count_is_saved_with_an_open_task(tmp_path):
    net = packnet_tf.PackNet(trunk(0.999))
    model = net.add_task("a", layers.Dense(4))
    model.compile("sgd", LOSS)
    model.fit(IMAGES, LABELS, batch_size=64, epochs=1, verbose=0)
    net.save(tmp_path / "pack.keras")
    assert float(packnet_tf.load(tmp_path / "pack.keras").open_model.batches_seen) == 5


@any_backend
def test_momentum_grows_with_the_steps_up_to_the_layers_own():
    found = [float(momentum_after(n, 0.9)) for n in (4, 68, 10_000)]
    np.testing.assert_allclose(found, [0.5, 0.9, 0.9], atol=1e-6)


@any_backend
def test_update_statistics_weighs_every_example_alike_and_leaves_weights():
    norm = layers.BatchNormalization(momentum=0.999)
    model = keras.Sequential([keras.Input((3,)), norm, layers.Dropout(0.5, seed=1)])
    x = RANDOM.normal(2.0, 3.0, (64, 3)).astype("float32")
    fixed = [norm.gamma, norm.beta, model.layers[-1].seed_generator.state]
    before = [np.array(ops.convert_to_numpy(variable)) for variable in fixed]
    update_statistics(model, x, batch_size=16)
    np.testing.assert_allclose(norm.moving_mean, x.mean(0), rtol=1e-5)
    mixed = x[np.random.default_rng(0).permutation(64)]
    variance = mixed.reshape(4, 16, 3).var(1).mean(0)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-5)
    assert type(norm) is layers.BatchNormalization
    assert norm.momentum == 0.999
    for variable, old in zip(fixed, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), old)


@any_backend
def test_a_task_can_keep_the_statistics_of_the_trunk_in_training_too():
    source = trunk(0.9)
    for norm in source.layers[1::3]:
        norm.moving_mean.assign(norm.moving_mean + 0.5)
    net = packnet_tf.PackNet(source)
    model = net.add_task("a", layers.Dense(4), statistics="trunk")
    answers = np.asarray(ops.convert_to_numpy(model(IMAGES, training=True)))
    np.testing.assert_array_equal(answers, ops.convert_to_numpy(model(IMAGES)))
    model.compile("adam", LOSS)
    model.fit(IMAGES, LABELS, epochs=1, verbose=0)
    net.commit()
    plain = net.unpack("a")
    found = [layer for layer in plain._flatten_layers() if hasattr(layer, "moving_mean")]
    for norm, old in zip(found, source.layers[1::3], strict=True):
        np.testing.assert_array_equal(norm.moving_mean, old.moving_mean)
        assert not np.array_equal(norm.gamma, old.gamma)
    stored = net.storage()["tasks"]["a"]
    assert stored == 4 * (2 * (16 + 16) + 16 * 4 + 4)  # gains and biases, and the head


def test_an_open_model_is_saved_and_read_as_plain_keras_layers(tmp_path):
    net = packnet_tf.PackNet(trunk(0.999, OwnNorm))
    model = net.add_task("a", layers.Dense(4))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(IMAGES[:4]), model.predict(IMAGES[:4]))
    norms = [part for part in loaded.trunk._flatten_layers() if isinstance(part, OwnNorm)]
    assert [norm.get_config()["momentum"] for norm in norms] == [0.999, 0.999]


@any_backend
def test_data_that_are_sorted_by_class_are_mixed_as_fit_does():
    order = np.argsort(LABELS)
    net = packnet_tf.PackNet(trunk(0.999))
    model = net.add_task("a", layers.Dense(4))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS)
    packing = packnet_tf.PackNetCallback(0.5, 2)
    model.fit(IMAGES[order], LABELS[order], epochs=3, callbacks=[packing], verbose=0)
    check(net)


@any_backend
@pytest.mark.parametrize("kind", ["table", "table of several dtypes", "iterator"])
def test_data_that_give_arrays_when_asked_are_those_of_fit(kind):
    """A table, and an iterator over folders of Keras's: neither is a generator that is used up."""
    iterator = kind == "iterator"

    class Table:
        shape, dtype = IMAGES.shape, IMAGES.dtype

        def __array__(self, dtype=None, copy=None):
            return IMAGES.astype(object) if kind == "table of several dtypes" else IMAGES

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(IMAGES) // 32

        def __getitem__(self, place):
            return IMAGES[place * 32 : place * 32 + 32], LABELS[place * 32 : place * 32 + 32]

        def __next__(self):
            return self[0]

    seen = SeenData()
    seen.remember_fit(Batches() if iterator else Table())
    seen.end_fit(8.0)
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input(IMAGES.shape[1:]), norm])
    assert seen.update_statistics(model, 8.0)
    mean = IMAGES[: len(IMAGES) // 32 * 32] if iterator else IMAGES
    axes = tuple(range(IMAGES.ndim - 1))
    np.testing.assert_allclose(norm.moving_mean, mean.mean(axes), rtol=1e-3, atol=1e-5)


@any_backend
def test_a_commit_after_fit_changes_no_answer():
    net = packnet_tf.PackNet(trunk(0.999))
    model = net.add_task("a", layers.Dense(4))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS)
    model.fit(IMAGES, LABELS, epochs=1, verbose=0)
    answers = model.predict(IMAGES, verbose=0)
    net.commit()
    np.testing.assert_array_equal(net.task_model("a").predict(IMAGES, verbose=0), answers)


@any_backend
@pytest.mark.parametrize("batch_size", [16, 64])
def test_a_norm_that_a_step_calls_twice_has_the_statistics_of_both_calls(batch_size):
    norm, left, right = layers.BatchNormalization(), keras.Input((3,)), keras.Input((3,))
    model = keras.Model([left, right], norm(left) + norm(right))
    x = [RANDOM.normal(mean, 1.0, (64, 3)).astype("float32") for mean in (0, 10)]
    update_statistics(model, x, batch_size)
    np.testing.assert_allclose(norm.moving_mean, np.mean(x, axis=(0, 1)), rtol=1e-4)
    assert "examples" not in vars(norm)


@any_backend
def test_a_last_batch_of_one_example_counts_as_one_example():
    norm = layers.BatchNormalization()
    x = RANDOM.normal(1.0, 2.0, (33, 3)).astype("float32")
    update_statistics(keras.Sequential([keras.Input((3,)), norm]), x, batch_size=32)
    np.testing.assert_allclose(norm.moving_mean, x.mean(0), rtol=1e-4)
    # One of them, which shuffling chose, is alone and has no variance.
    within = [np.delete(x, alone, axis=0).var(0) * 32 / 33 for alone in range(33)]
    assert any(np.allclose(norm.moving_variance, each, rtol=1e-4) for each in within)


@any_backend
def test_frames_count_alike():
    norm = layers.BatchNormalization()
    inner = keras.Sequential([keras.Input((3,)), norm])
    model = keras.Sequential([keras.Input((4, 3)), layers.TimeDistributed(inner)])
    x = (RANDOM.normal(size=(32, 4, 3)) + np.arange(4)[:, None]).astype("float32")
    update_statistics(model, x, batch_size=16)
    np.testing.assert_allclose(norm.moving_mean, x.mean(axis=(0, 1)), rtol=1e-4)


@pytest.mark.parametrize("train", ["fit", "train_on_batch"])
def test_inputs_may_be_a_list(train):
    inputs = [keras.Input((4,), name=name) for name in ("left", "right")]
    x = layers.BatchNormalization()(layers.Dense(4)(layers.Concatenate()(inputs)))
    net = packnet_tf.PackNet(keras.Model(inputs, x))
    model = net.add_task("a", layers.Dense(4))
    model.compile("sgd", LOSS)
    images = [RANDOM.normal(size=(64, 4)).astype("float32") for _ in range(2)]
    if train == "fit":
        model.fit(images, LABELS[:64], verbose=0, callbacks=[packnet_tf.PackNetCallback(0.5, 0)])
    else:
        model.train_on_batch(images, LABELS[:64])
        net.commit()
    assert net.tasks == ("a",)


def test_spectral_normalisation_keeps_the_weights_of_training():
    dense = layers.SpectralNormalization(layers.Dense(8))
    net = packnet_tf.PackNet(keras.Sequential([keras.Input((4,)), dense, layers.Dense(8)]))
    model = net.add_task("a", layers.Dense(4))
    model.compile("sgd", LOSS)
    images = RANDOM.normal(size=(64, 4)).astype("float32")
    model.fit(images, LABELS[:64], epochs=2, verbose=0)
    before = [np.array(value) for value in model.get_weights()]
    update_statistics(model, images, batch_size=64)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
