"""Statistics are measured on the data that a committed network was trained on, on no other."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf
from packnet_tf.normalization import seen_data

any_backend = pytest.mark.any_backend
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(3.0, 2.0, (64, 6)).astype("float32")
X[48:] += 20  # the last quarter is another kind of data
Y = RANDOM.integers(0, 3, 64).astype("int32")
OTHERS = RANDOM.normal(-5.0, 1.0, (32, 6)).astype("float32")
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 64, 16)]


@pytest.fixture
def net():
    keras.utils.set_random_seed(0)
    parts = [layers.Dense(8, use_bias=False), layers.BatchNormalization(momentum=0.999)]
    return packnet_tf.PackNet(keras.Sequential([keras.Input((6,)), *parts, layers.ReLU()]))


@pytest.fixture
def model(net):
    model = net.add_task("a", layers.Dense(3))
    model.compile("sgd", LOSS)
    return model


def means(net):
    """The moving means of the committed task, and those of each kind of data."""
    plain = net.unpack("a")
    kernel = next(weight for weight in plain.weights if "kernel" in weight.path)
    (mean,) = (weight for weight in plain.weights if "moving_mean" in weight.path)
    kinds = {"all": X, "first": X[:48], "others": OTHERS, "one": X[:1]}
    features = {kind: x @ ops.convert_to_numpy(kernel) for kind, x in kinds.items()}
    return ops.convert_to_numpy(mean), {kind: x.mean(axis=0) for kind, x in features.items()}


def assert_measured_on(net, kind):
    found, expected = means(net)
    np.testing.assert_allclose(found, expected[kind], rtol=1e-4, atol=1e-4)


def traced(model):
    """A step of one's own, whose data nobody sees."""
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(0.01)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = LOSS(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)

    return step


def test_a_loop_may_write_each_batch_into_the_same_array(net, model):
    buffer = np.empty_like(BATCHES[0][0])
    for _ in range(3):
        for x, y in BATCHES:
            buffer[:] = x
            model.train_on_batch(buffer, y)
    net.prune(0.75)
    net.commit()
    assert_measured_on(net, "all")


@any_backend
@pytest.mark.parametrize("pruned", [False, True])
def test_the_last_batches_of_a_generator_are_kept(net, model, pruned):
    def batches():
        while True:
            yield from BATCHES

    model.fit(batches(), steps_per_epoch=4, epochs=20, verbose=0)  # more than are kept
    if pruned:
        net.prune(0.75)
    net.commit()
    assert_measured_on(net, "all")


def test_only_so_many_bytes_of_batches_are_kept(net, model, monkeypatch):
    monkeypatch.setattr(seen_data, "MOST_BYTES", BATCHES[0][0].nbytes)
    for x, y in [*BATCHES * 3, (OTHERS, Y[:32])]:
        model.train_on_batch(x, y)
    net.prune(0.75)
    net.commit()
    assert_measured_on(net, "others")


def test_a_dataset_that_can_be_read_once_is_no_reason_to_lose_the_task(net, model):
    import tensorflow as tf

    once = iter(BATCHES * 12)
    kinds = tf.TensorSpec((None, 6)), tf.TensorSpec((None,), tf.int32)
    data = tf.data.Dataset.from_generator(lambda: once, output_signature=kinds)
    model.fit(data, steps_per_epoch=4, epochs=3, verbose=0,
              callbacks=[packnet_tf.PackNetCallback(0.5, 1)])  # fmt: skip
    assert net.tasks == ("a",)
    used_up = tf.data.Dataset.from_generator(lambda: iter([]), output_signature=kinds[:1])
    model = net.add_task("b", layers.Dense(3))
    with pytest.raises(ValueError, match="The data to measure statistics on have no batches"):
        packnet_tf.update_statistics(model, used_up)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("tensors", [True, False])
def test_texts_are_taken_as_by_fit(tensors, norm):
    import tensorflow as tf

    texts = np.array(["a b c", "b c d"] * 16, object)
    inputs = keras.Input((), dtype="string")
    words = layers.TextVectorization(output_sequence_length=6)
    words.adapt(["a b c d"])
    x = layers.Conv1D(8, 3)(layers.Embedding(10, 8)(words(inputs)))
    x = layers.BatchNormalization(momentum=0.5)(x) if norm else x
    net = packnet_tf.PackNet(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    model = net.add_task("a", layers.Dense(3))
    model.compile("sgd", LOSS)
    model.fit(tf.constant(texts.tolist()) if tensors else texts, np.arange(32) % 2, verbose=0,
              epochs=2, callbacks=[packnet_tf.PackNetCallback(0.5, 1)])  # fmt: skip
    assert net.tasks == ("a",)


@any_backend
def test_a_prune_between_fit_and_commit_measures_anew(net, model):
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0)
    net.prune(0.75)
    net.commit()
    assert_measured_on(net, "all")


def test_a_schedule_may_end_with_the_last_step(net, model):
    schedule = packnet_tf.constant_sparsity(0.75, begin_step=12)
    callback = packnet_tf.PackNetCallback(schedule=schedule)
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[callback])
    assert net.capacity().free == 0.75
    assert_measured_on(net, "all")


def test_the_trainer_may_prune_last(net):
    packnet_tf.PackTrainer(
        net, epochs=3, retrain_epochs=0, prune=0.75, batch_size=16, verbose=False
    ).fit([packnet_tf.Task("a", layers.Dense(3), (X, Y))])
    assert_measured_on(net, "all")


@any_backend
def test_a_loop_may_prune_last(net, model):
    for batch in BATCHES * 3:
        model.train_on_batch(*batch)
    net.prune(0.75)
    net.commit()
    assert_measured_on(net, "all")


def test_a_few_steps_before_a_prune_leave_the_averages(net, model):
    model.train_on_batch(*BATCHES[0])
    before = np.array(model.trunk.layers[-2].moving_mean)
    net.prune(0.75)
    net.commit()
    assert np.array_equal(means(net)[0], before)


@any_backend
def test_what_validation_split_holds_out_is_not_measured(net, model):
    model.fit(X, Y, batch_size=16, epochs=2, validation_split=0.25, verbose=0)
    net.prune(0.5)
    net.commit()
    assert_measured_on(net, "first")


@any_backend
def test_what_one_measures_oneself_is_committed(net, model):
    model(X[:1], training=True)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    net.prune(0.5)
    packnet_tf.update_statistics(model, OTHERS, batch_size=32)
    net.commit()
    assert_measured_on(net, "others")


@pytest.mark.parametrize("pruned_last", [False, True])
def test_a_look_at_one_image_is_no_training_data(net, model, pruned_last):
    model(X[:1], training=True)  # builds, or looks
    step = traced(model)
    for batch in BATCHES * 3:
        step(*batch)
    if pruned_last:
        net.prune(0.5)
        with pytest.warns(UserWarning, match=r"from before its last prune.*update_statistics"):
            net.commit()
    else:
        net.commit()
    found, expected = means(net)
    assert not np.allclose(found, expected["one"], rtol=0.1)


def test_steps_after_fit_on_other_data_count(net, model):
    model.fit(OTHERS, Y[:32], batch_size=16, epochs=1, verbose=0)
    step = traced(model)
    for batch in BATCHES * 50:
        step(*batch)
    net.prune(0.0)
    net.commit()
    found, expected = means(net)
    assert np.abs(found - expected["all"]).mean() < np.abs(found - expected["others"]).mean() / 4


def test_the_step_of_another_task_is_noticed(net, model):
    step = traced(model)
    step(*BATCHES[0])
    packnet_tf.update_statistics(model, X)
    net.commit()
    net.add_task("b", layers.Dense(3), overlay=0.5)
    step(*BATCHES[0])
    net.prune(0.5)
    with pytest.warns(UserWarning, match=r"closed task 'a' has been called in training mode"):
        net.commit()


def test_the_step_of_a_discarded_task_is_noticed(net, model):
    step = traced(model)
    step(*BATCHES[0])
    net.discard()
    net.add_task("b", layers.Dense(3))
    net.prune(0.5)
    step(*BATCHES[0])
    with pytest.warns(UserWarning, match=r"closed task 'a' has been called in training mode"):
        net.commit()
