"""How much of the free weights a task takes and gives back, and by which criterion."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    claims,
    compiled,
    data,
    kernels,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    same,
    state,
    values,
)

pytestmark = pytest.mark.any_backend


def test_a_criterion_of_ones_own_decides_what_goes():
    """`(weights, claim, ratio) -> released`: here the largest go."""
    net = packed(mlp_trunk(), one=0.5)
    net.add_task("two", layers.Dense(3))
    before, calls = kernels(net), []

    def largest(weights, claim, ratio):
        calls.append(weights.shape)
        chosen = np.zeros(claim.shape, bool)
        order = np.argsort(np.where(claim, -np.abs(weights), np.inf), axis=None)
        chosen.flat[order[: round(ratio * claim.sum())]] = True
        return chosen

    claimed = claims(net)
    assert net.prune(0.25, largest) == {"first": 24, "second": 16}
    assert calls == [(12, 16), (16, 8)]
    for path, claim in claims(net).items():
        gone = (claimed[path] > 0) & (claim == 0)
        assert np.abs(before[path])[gone].min() >= np.abs(before[path])[claim > 0].max()


@pytest.mark.parametrize(
    ("criterion", "what"),
    [
        (lambda w, c, r: c, "192 weights"),
        (lambda w, c, r: c.astype(int), "a int64 array of shape (12, 16)"),
        (lambda w, c, r: c[0], "a bool array of shape (16,)"),
        (lambda w, c, r: ~c, None),
    ],
)
def test_a_criterion_that_does_not_choose_the_ratio_is_refused(criterion, what):
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", layers.Dense(3))
    if what is None:
        net.prune(0.5)
        what = "96 weights that the task does not claim"
    before = state(net)
    with pytest.raises(ValueError) as error:
        net.prune(0.25, criterion)
    claimed = 96 if "not claim" in what else 192
    assert str(error.value) == (
        f"Cannot prune task 'one': layer 'first': the criterion '<lambda>' chose {what}; expected "
        f"a bool array of shape (12, 16) with {claimed // 4} of the {claimed} claimed weights, "
        "round(ratio * claimed). See packnet_tf.magnitude for one that does."
    )
    assert same(state(net), before)


@pytest.mark.parametrize("restart", ["trunk", "zero", "fresh"])
def test_a_task_claims_exactly_the_part_it_asks_for(restart):
    net = packnet_tf.PackNet(mlp_trunk(), restart=restart)
    pack_task(net, "one", 0.5)
    net.add_task("two", layers.Dense(3), claim_ratio=0.3)
    began = {"first": round(0.3 * 96), "second": round(0.3 * 64)}
    assert {path: np.count_nonzero(claim) for path, claim in claims(net).items()} == began
    for path, owner in owners(net).items():
        assert not np.any(claims(net)[path][owner > 0])
        rows = np.count_nonzero(claims(net)[path], axis=1)
        assert np.count_nonzero(rows) > len(rows) / 2  # spread over the kernel
    net.prune(0.5)
    assert net.state.claimed_share()[1] == pytest.approx(0.5, abs=0.02)
    net.commit()
    pack_task(net, "three", 0.0)
    assert net.capacity().free == 0


def test_a_part_is_claimed_where_the_largest_values_are():
    net = packnet_tf.PackNet(mlp_trunk())
    start = kernels_to_start_from(net)
    net.add_task("one", layers.Dense(3), claim_ratio=0.25)
    for path, claim in claims(net).items():
        sizes = np.abs(start[path])
        assert sizes[claim > 0].min() >= sizes[claim == 0].max()
        assert np.all(kernels(net)[path][claim == 0] == 0)


def kernels_to_start_from(net):
    return {path: values([weight.packed])[0] for path, weight in net.state.weights.items()}


@pytest.mark.parametrize("ratio", [-0.1, 1.5, "half", None])
def test_a_claim_ratio_out_of_range_is_refused(ratio):
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        net.add_task("one", layers.Dense(3), claim_ratio=ratio)
    assert str(error.value) == (
        "claim_ratio is the fraction of the free weights that the task claims, a number from 0 to "
        f"1; got {ratio!r}. Write claim_ratio=0.75 for three quarters."
    )
    assert net.open_model is None


def test_fresh_weights_are_those_of_their_own_layers_initializers():
    constant = keras.initializers.Constant
    block = keras.Sequential([keras.Input((2, 2, 4)), layers.GlobalAveragePooling2D()])
    for place in range(3):  # of one shape, so that no error tells them apart
        block.add(layers.Dense(4, kernel_initializer=constant(place + 1.0), name=f"dense{place}"))
    inputs = keras.Input((2, 2, 4))
    depthwise = layers.DepthwiseConv2D(1, depthwise_initializer=constant(9.0), name="depthwise")
    net = packnet_tf.PackNet(keras.Model(inputs, block(depthwise(inputs))), restart="fresh")
    net.add_task("one", layers.Dense(3))
    net.prune(0.5)
    net.commit()
    net.add_task("two", layers.Dense(3))
    free = {path.rpartition("/")[2]: w for path, w in net.state.weights.items()}
    found = {
        name: set(values([w.packed])[0][values([w.owner])[0] == 0].tolist())
        for name, w in free.items()
    }
    assert found == {"depthwise": {9.0}, "dense0": {1.0}, "dense1": {2.0}, "dense2": {3.0}}


def test_fresh_weights_are_drawn_anew_for_every_task_but_the_first():
    net = packnet_tf.PackNet(mlp_trunk(), restart="fresh")
    came_with = kernels_to_start_from(net)
    net.add_task("one", layers.Dense(3))
    assert all(np.array_equal(kernels(net)[path], came_with[path]) for path in came_with)
    net.prune(0.5)
    net.commit()
    drawn = []
    for name in ("two", "three"):
        net.add_task(name, layers.Dense(3))
        free = {path: owner == 0 for path, owner in owners(net).items()}
        drawn.append({path: kernels(net)[path][free[path]] for path in free})
        for path, fresh in drawn[-1].items():
            assert not np.any(np.isin(fresh, came_with[path]))
            assert 0.5 < np.std(fresh) / np.std(came_with[path]) < 2
        net.discard()
    assert not np.any(np.isin(drawn[0]["first"], drawn[1]["first"]))


def test_the_last_task_can_be_released_and_its_weights_packed_again():
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    x, _ = data(net.task_model("one"))
    before, free = logits(net.task_model("one"), x), net.capacity().free
    gone, plain = net.task_model("two"), net.unpack("two")
    kept = logits(gone, x)
    net.release("two")
    assert net.tasks == ("one",)
    assert net.capacity().free == 2 * free
    assert np.array_equal(logits(net.task_model("one"), x), before)
    assert np.array_equal(logits(plain, x), kept)
    sentence = (
        "This model of task 'two' cannot answer: the task was released, and its weights are free "
        "or another task's. Keep a plain copy, net.unpack(task), before net.release(task)."
    )
    compiled(gone)
    for use in (gone, gone.predict, lambda x: gone.evaluate(x, x[:, 0])):
        with pytest.raises(RuntimeError) as error:
            use(x)
        assert sentence in str(error.value)  # Keras on JAX adds a sentence of its own
    pack_task(net, "two", 0.5, seed=5)
    assert net.tasks == ("one", "two")
    assert np.array_equal(logits(net.task_model("one"), x), before)
    logits(net.task_model("two"), x)


@pytest.mark.parametrize(("restart", "zero"), [("trunk", False), ("zero", True), ("fresh", False)])
def test_released_weights_restart_as_the_policy_says(restart, zero, tmp_path):
    net = packnet_tf.PackNet(mlp_trunk(), restart=restart)
    pack_task(net, "one", 0.5)
    net.release("one")
    assert net.tasks == ()
    net.save(tmp_path / "empty.keras")
    assert packnet_tf.load(tmp_path / "empty.keras").tasks == ()
    assert all(np.all(start == 0) == zero for start in kernels_to_start_from(net).values())


def test_a_task_that_others_depend_on_is_not_released():
    net = packed(mlp_trunk(), one=0.5, two=0.5, three=0.5)
    before = state(net)
    with pytest.raises(ValueError) as error:
        net.release("one")
    assert str(error.value) == (
        "Cannot release task 'one': tasks packed after it depend on its weights: 'two', 'three'. "
        "Release those first, the last one first: net.release('three')."
    )
    net.add_task("four", layers.Dense(3))
    with pytest.raises(RuntimeError) as error:
        net.release("three")
    assert str(error.value) == (
        "Cannot release task 'three': the open task 'four' trains on top of its weights. Finish "
        "that with net.prune(ratio) and net.commit(), or drop it with net.discard()."
    )
    net.discard()
    assert net.tasks == ("one", "two", "three")
    with pytest.raises(ValueError, match="There is no committed task 'nine'"):
        net.release("nine")
    net.add_task("four", layers.Dense(3))
    net.discard()
    assert len(state(net)) == len(before)


def test_a_part_claimed_survives_the_file(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    net.add_task("two", layers.Dense(3), claim_ratio=0.5)
    net.prune_to(0.25)
    net.save(tmp_path / "open.keras")
    loaded = packnet_tf.load(tmp_path / "open.keras")
    assert loaded.state.claimed_share() == net.state.claimed_share()
    assert loaded.state.missing_to(0.5) == net.state.missing_to(0.5) > 0
