"""Trunks with computed kernels: steps worked out by hand, and what no optimizer may move."""

import keras
import numpy as np
import pytest
from keras import layers

from packnet_tf.apps.research.methods.rivals.kernels import (
    ComputedTrunk,
    LowRankKernel,
    MaskedKernel,
)
from packnet_tf.apps.research.methods.rivals.masks import at_least, top_share
from packnet_tf.apps.research.methods.rivals.parts import Parts

KERNEL = np.array([[1.0, -2.0], [3.0, 4.0]], "float32")


def dense_trunk(kernel=KERNEL):
    inputs = keras.Input((2,))
    outputs = layers.Dense(2, use_bias=False, name="dense")(inputs)
    trunk = keras.Model(inputs, outputs)
    trunk.get_layer("dense").set_weights([kernel])
    return trunk, trunk.get_layer("dense").kernel


def step(model, optimizer, inputs, targets):
    """One step on the loss sum(targets * outputs).

    The step is eager: the gradient of this loss does not depend on the outputs, so a graph may
    update a weight before the forward pass reads it.
    """
    model.compile(
        optimizer, lambda y, outputs: keras.ops.sum(y * outputs, axis=-1), run_eagerly=True
    )
    return model.train_on_batch(np.array(inputs, "float32"), np.array(targets, "float32"))


@pytest.mark.parametrize("by_size", [False, True])
def test_a_step_moves_scores_by_the_gradient_of_the_mask_and_no_fixed_weight(by_size):
    trunk, kernel = dense_trunk()
    sign = np.array([1.0, -1.0 if by_size else 1.0], "float32")  # of the second column
    scores = np.array([[0.5, 0.1], [0.3, 0.4]], "float32") * sign
    part = MaskedKernel(kernel, scores, lambda s: top_share(s, 0.5), by_size=by_size)
    model = ComputedTrunk(trunk, [part])
    inputs = np.array([[1.0, 2.0]], "float32")
    assert np.array_equal(model(inputs), [[1.0, 8.0]])  # 1 and 4 are seen
    step(model, keras.optimizers.SGD(0.1), inputs, [[1.0, -1.0]])
    # The loss by the kernel is [[1, -1], [2, -2]]; times the weights it is [[1, 2], [6, -8]].
    moved = np.array([[0.1, 0.2], [0.6, -0.8]]) * sign
    np.testing.assert_allclose(part.scores, scores - moved, rtol=1e-6)
    assert np.array_equal(kernel, KERNEL)
    assert np.array_equal(part.mask(), [[True, False], [False, True]])


@pytest.mark.parametrize("picks", [False, True])
def test_taken_weights_keep_their_bits_under_decay_and_momentum_while_others_train(picks):
    trunk, kernel = dense_trunk()
    taken = np.array([[True, False], [True, False]])
    scores = np.full((2, 2), 0.01, "float32")
    part = MaskedKernel(kernel, scores, at_least, taken=taken, picks=picks)
    model = ComputedTrunk(trunk, [part])
    for _ in range(3):
        step(model, keras.optimizers.AdamW(0.1, weight_decay=0.5), [[1.0, 2.0]], [[1.0, 1.0]])
    found = np.array(part.shared())
    assert np.array_equal(found[taken], KERNEL[taken])
    assert np.all(found[~taken] != KERNEL[~taken])


def test_picking_masks_taken_weights_and_shows_all_others_but_the_released():
    _, kernel = dense_trunk(np.array([[1.0, -2.0], [3.0, -0.5]], "float32"))
    taken = np.array([[True, False], [True, False]])
    scores = np.array([[0.0, 0.0], [1.0, 0.0]], "float32")
    part = MaskedKernel(kernel, scores, at_least, taken=taken, picks=True)
    assert np.array_equal(part.value(), [[0.0, -2.0], [3.0, -0.5]])
    part.release(0.5)
    assert np.array_equal(part.value(), [[0.0, -2.0], [3.0, 0.0]])
    assert np.array_equal(part.mask(), [[False, True], [True, False]])


def test_releasing_in_steps_leaves_exactly_the_share_of_the_first_claim():
    kernel = keras.Variable(np.arange(10, 0, -1, dtype="float32"))
    part = MaskedKernel(
        kernel, np.zeros(10, "float32"), at_least, taken=np.zeros(10, bool), picks=True
    )
    counts = []
    for sparsity in (0.0, 0.33, 0.2, 0.75):
        part.release(sparsity)
        counts.append(int(part.mask().sum()))
    assert counts == [10, 7, 7, 2]
    assert np.array_equal(np.flatnonzero(part.mask()), [0, 1])


@pytest.mark.parametrize("size", [1.0, 1e-4])  # gradients of 1e-7, as large as Adam's epsilon
@pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.optimizers.SGD])
def test_scores_move_at_their_own_rate_whatever_the_size_of_gradients(kind, size):
    moved = {}
    for factor in (1.0, 0.01):
        trunk, kernel = dense_trunk()
        part = MaskedKernel(kernel, np.full((2, 2), 0.01, "float32"), at_least, factor)
        step(ComputedTrunk(trunk, [part]), kind(0.01), [[size, 2 * size]], [[1.0, -1.0]])
        moved[factor] = (part.scores - 0.01 / factor) * factor
    np.testing.assert_allclose(moved[0.01], moved[1.0] / 100, rtol=1e-2, atol=1e-10)


def test_a_low_rank_kernel_starts_as_it_was_and_adds_the_product():
    trunk, kernel = dense_trunk()
    part = LowRankKernel(kernel, (2, 2), rank=1)
    model = ComputedTrunk(trunk, [part])
    assert np.array_equal(part.value(), KERNEL)
    assert len(model.trainable_variables) == 2
    part.first.assign([[1.0], [2.0]])
    part.second.assign([[10.0, 20.0]])
    assert np.array_equal(part.value(), [[11.0, 18.0], [23.0, 44.0]])
    step(model, keras.optimizers.SGD(0.1), [[1.0, 0.0]], [[1.0, 1.0]])
    np.testing.assert_allclose(part.first, [[1.0 - 0.1 * 30.0], [2.0]], rtol=1e-6)
    np.testing.assert_allclose(part.second, [[10.0 - 0.1, 20.0 - 0.1]], rtol=1e-6)
    assert np.array_equal(kernel, KERNEL)


def norm_trunk():
    inputs = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, name="depthwise")(inputs)
    x = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.Conv2D(4, 1, name="conv")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def test_moving_statistics_and_outputs_are_those_of_the_trunk_itself():
    trunk = norm_trunk()
    twin = keras.models.clone_model(trunk)
    twin.set_weights(trunk.get_weights())
    parts = Parts(trunk, "own")
    whole = ComputedTrunk(trunk, [LowRankKernel(k.variable, k.matrix, 2) for k in parts.kernels])
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    assert np.array_equal(whole(images, training=True), twin(images, training=True))
    for ours, theirs in zip(trunk.get_weights(), twin.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    assert whole.predict_on_batch(images).shape == (4, 4)


def test_parts_are_kernels_own_weights_and_the_rest():
    trunk = norm_trunk()
    parts = Parts(trunk, "own")
    assert [kernel.matrix for kernel in parts.kernels] == [(9, 3), (3, 4)]
    assert [v.name for v in parts.own] == [
        "bias", "gamma", "beta", "moving_mean", "moving_variance", "bias",
    ]  # fmt: skip
    assert parts.rest == []
    kept = Parts(trunk, "trunk")
    assert [v.name for v in kept.own] == ["bias", "bias"]
    assert len(kept.rest) == 4
    kept.freeze()
    assert [v.name for v in trunk.trainable_variables] == ["bias", "bias"]
    parts.forget()
    assert [float(v.numpy().mean()) for v in parts.own] == [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
