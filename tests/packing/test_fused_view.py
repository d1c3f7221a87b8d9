"""Large kernels in training are selected in one pass, and are the same to the bit."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import (
    TRUNKS,
    compiled,
    conv_trunk,
    data,
    fit,
    kernels,
    packed,
    same,
    state,
    values,
)
from packnet_tf.backend import distribution
from packnet_tf.packing import fused_view


@pytest.fixture
def compilations(monkeypatch):
    """What is compiled in a test, where every kernel counts as large: shapes and dtypes."""
    found, compile_for = [], fused_view._compiled

    def noted(shape, *dtypes):
        found.append((shape, *dtypes))
        return compile_for(shape, *dtypes)

    monkeypatch.setattr(fused_view, "LARGE", 1)
    monkeypatch.setattr(fused_view, "_compiled", noted)
    return found


def trained(trunk, optimizer, overlay=None, **options):
    """The pack of a second task that was trained, pruned and committed, and the history."""
    keras.utils.set_random_seed(3)
    net = packed(trunk, one=0.5)
    model = net.add_task("two", layers.Dense(3), overlay=overlay)
    compiled(model, optimizer(), **options)
    callback = packnet_tf.PackNetCallback(0.5, prune_epoch=1)
    history = fit(model, *data(trunk), callback, epochs=3, shuffle=False).history
    return net, history


@pytest.mark.parametrize(
    ("kind", "optimizer", "overlay"),
    [
        ("conv", keras.optimizers.AdamW, None),
        ("nested", keras.optimizers.AdamW, 0.2),
        *slow(*((kind, keras.optimizers.SGD, None) for kind in ("conv1d", "conv3d", "mlp"))),
    ],
)
def test_training_goes_the_same_way_to_the_bit(kind, optimizer, overlay, compilations, monkeypatch):
    trunk = TRUNKS[kind]()
    ours, history = trained(trunk, optimizer, overlay)
    assert compilations
    monkeypatch.setattr(fused_view, "LARGE", 1 << 62)
    plain, expected = trained(trunk, optimizer, overlay)
    assert history == expected
    assert same(state(ours), state(plain))
    assert ours.state.record("two").overlaid == plain.state.record("two").overlaid


def test_mixed_precision_goes_the_same_way_to_the_bit(compilations, monkeypatch):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trunk = conv_trunk()
        ours, history = trained(trunk, keras.optimizers.SGD)
        # The cast is within: what goes in is as it is stored.
        assert compilations
        assert all(dtypes == ["float32", "bfloat16"] for _, *dtypes in compilations)
        monkeypatch.setattr(fused_view, "LARGE", 1 << 62)
        plain, expected = trained(trunk, keras.optimizers.SGD)
    finally:
        keras.config.set_dtype_policy("float32")
    assert history == expected
    assert same(state(ours), state(plain))


def test_a_kernel_and_its_gradient_are_those_of_the_view(compilations):
    import tensorflow as tf

    trunk = keras.Sequential([keras.Input((12,)), layers.Dense(16, name="dense")])
    net = packed(trunk, one=0.5)
    net.add_task("two", layers.Dense(3))
    net.prune(0.5)
    [weight] = net.state.weights.values()
    trainable, owner = values([weight.trainable, weight.owner])
    # What must not come through: values beside the claim, and NaNs wherever they are.
    weight.trainable.assign(np.where(owner == 1, np.nan, trainable))
    upstream = np.random.default_rng(0).normal(size=trainable.shape).astype("float32")
    upstream[0] = np.nan
    [layer] = net.open_model.trunk.packed_layers()
    found = []
    for kernel_of in (lambda: layer.kernel, lambda: weight.view((1, 2))):
        with tf.GradientTape() as tape:
            kernel = kernel_of()
            total = tf.reduce_sum(kernel * upstream)
        found.append([kernel.numpy(), tape.gradient(total, weight.trainable.value).numpy()])
    assert compilations == [((12, 16), "float32", "float32")]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.isnan(found[0][0]).any()


def test_only_the_open_task_is_compiled(trunk, compilations):
    net = packed(trunk, one=0.5)
    x, y = data(trunk)
    net.task_model("one").predict(x, verbose=0)
    assert not compilations
    model = net.add_task("two", layers.Dense(3))
    fit(compiled(model), x, y, epochs=1)
    assert len(compilations) >= len(net.state.weights)
    answers = model.predict(x, verbose=0)
    net.commit()
    compilations.clear()
    model.make_predict_function(force=True)
    assert np.array_equal(model.predict(x, verbose=0), answers)
    assert not compilations


def test_small_kernels_and_replicas_are_left_alone(compilations, monkeypatch):
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert not distribution.compiles_on_cpu()
    monkeypatch.setattr(fused_view, "LARGE", 1000)
    trunk = keras.Sequential([keras.Input((12,)), layers.Dense(16), layers.Dense(80)])
    model = packnet_tf.PackNet(trunk).add_task("one", layers.Dense(3))
    fit(compiled(model), *data(trunk), epochs=1)
    assert {shape for shape, *_ in compilations} == {(16, 80)}


def test_where_xla_is_missing_training_goes_on(compilations, monkeypatch):
    import tensorflow as tf

    def without_xla(*args, **kwargs):
        def call(*args):
            raise tf.errors.UnimplementedError(None, None, "no XLA in this build")

        return call

    distribution._has_xla.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(tf, "function", without_xla)
        assert not distribution.compiles_on_cpu()
    trunk = keras.Sequential([keras.Input((12,)), layers.Dense(16)])
    model = packnet_tf.PackNet(trunk).add_task("one", layers.Dense(3))
    before = kernels(model.pack)
    fit(compiled(model), *data(trunk), epochs=1)
    assert not compilations
    assert not same(list(before.values()), list(kernels(model.pack).values()))
    distribution._has_xla.cache_clear()
