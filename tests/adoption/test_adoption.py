"""A pretrained trunk becomes the first task without its training data."""

import types

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf
from helpers.pack_helpers import (
    claims,
    compiled,
    data,
    fit,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed_layers,
    same,
    values,
)
from helpers.pretrained import JIT_COMPILE, adopt, committed, images, pretrained
from packnet_tf.adoption import adopt as adoption
from packnet_tf.packing.policy import own_weights

any_backend = pytest.mark.any_backend


@pytest.fixture(scope="module")
def repaired():
    """A trunk, the pack that adopted half of it with its head, and what adopting measured."""
    keras.utils.set_random_seed(7)
    trunk, head = pretrained()
    net = packnet_tf.PackNet(trunk)
    done = adopt(net, head=head, classes=["a", "b", "c"])
    return types.SimpleNamespace(trunk=trunk, head=head, net=net, done=done)


@pytest.fixture
def copied(repaired, tmp_path):
    """The same pack, to be changed."""
    repaired.net.save(tmp_path / "repaired.keras")
    return packnet_tf.load(tmp_path / "repaired.keras")


def relative_error(trunk, wanted, x):
    """The error of a trunk's features as `Adoption` gives it."""
    return np.mean((logits(trunk, x) - wanted) ** 2) / np.var(wanted)


def own(trunk):
    """Values of all that is not packed, by layer and name."""
    return {(layer.name, v.name): values([v])[0] for layer, v in own_weights(trunk)}


# -- Without repair ------------------------------------------------------------------------------


@any_backend
@pytest.mark.parametrize("with_images", [False, True])
def test_unpruned_the_adopted_task_is_the_pretrained_trunk_bit_for_bit(with_images):
    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk)
    x = images()
    done = adopt(net, prune_ratio=0, images=x if with_images else None)
    assert np.array_equal(logits(net.task_model("imagenet"), x), logits(trunk, x))
    error = 0.0 if with_images else None
    assert done == adoption.Adoption("imagenet", 0.0, 0, error, error, error)


@any_backend
@pytest.mark.parametrize("ratio", [0, 0.3, 0.5, 1])
def test_exactly_the_rounded_share_of_every_layer_is_released(trunk, ratio):
    net = packnet_tf.PackNet(trunk)
    done = net.adopt("imagenet", ratio)
    counts = {path: np.count_nonzero(owner == 0) for path, owner in owners(net).items()}
    sizes = {path: owner.size for path, owner in owners(net).items()}
    assert counts == {path: round(ratio * size) for path, size in sizes.items()}
    assert done.released == sum(counts.values()) / sum(sizes.values())
    assert net.tasks == ("imagenet",)
    assert not any(claim.any() for claim in claims(net).values())


@any_backend
def test_what_is_kept_are_the_trunks_values_and_the_rest_is_zero():
    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk)
    net.adopt("imagenet", 0.5)
    for layer in packed_layers(net.task_model("imagenet")):
        kernel = values([trunk.get_layer(layer.name).kernel])[0]
        owner = ops.convert_to_numpy(layer.packed_weights["kernel"].owner)
        assert np.array_equal(ops.convert_to_numpy(layer.kernel), np.where(owner == 1, kernel, 0))


@any_backend
def test_the_criterion_says_what_is_released():
    def first(weights, claim, ratio):
        chosen = np.zeros(weights.size, bool)
        chosen[: round(ratio * weights.size)] = True
        return chosen.reshape(weights.shape)

    net = packnet_tf.PackNet(mlp_trunk())
    net.adopt("imagenet", 0.5, criterion=first)
    for owner in owners(net).values():
        assert np.array_equal(owner.ravel(), [0] * (owner.size // 2) + [1] * (owner.size // 2))


@any_backend
def test_the_head_keeps_its_values_and_the_classes_their_names(repaired):
    model = repaired.net.task_model("imagenet")
    assert same(values(model.head.weights), values(repaired.head.weights))
    assert repaired.net.classes("imagenet") == ["a", "b", "c"]
    assert logits(model, images()).shape == (96, 3)


@any_backend
def test_without_a_head_the_task_answers_with_the_trunks_features():
    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk)
    net.adopt("imagenet", 0.5)
    model = net.task_model("imagenet")
    assert model.head.weights == []
    assert np.array_equal(logits(model, images()), logits(model.trunk, images()))


# -- Repair --------------------------------------------------------------------------------------


@any_backend
def test_repair_brings_the_features_back_to_the_unpruned_trunks(repaired):
    unrepaired = packnet_tf.PackNet(repaired.trunk)
    unrepaired.adopt("imagenet", 0.5)
    done = repaired.done
    assert done.epochs == 8
    assert done.error_repaired < 0.5 * done.error_pruned

    x = images()
    wanted = logits(repaired.trunk, x)
    # The figures are those of the committed task.
    error = relative_error(unrepaired.task_model("imagenet").trunk, wanted, x)
    assert error == pytest.approx(done.error_pruned, rel=1e-4)
    error = relative_error(repaired.net.task_model("imagenet").trunk, wanted, x)
    assert error == pytest.approx(done.error_repaired, rel=1e-4)


@any_backend
def test_repair_leaves_released_weights_zero_and_the_choice_as_it_was(repaired):
    unrepaired = packnet_tf.PackNet(repaired.trunk)
    unrepaired.adopt("imagenet", 0.5)
    assert same(list(owners(repaired.net).values()), list(owners(unrepaired).values()))
    for layer in packed_layers(repaired.net.task_model("imagenet")):
        owner = ops.convert_to_numpy(layer.packed_weights["kernel"].owner)
        kernel = ops.convert_to_numpy(layer.kernel)
        assert not kernel[owner == 0].any()
        start = values([repaired.trunk.get_layer(layer.name).kernel])[0]
        assert np.any(kernel[owner == 1] != start[owner == 1])


@any_backend
@pytest.mark.parametrize(("biases", "norms"), [("shared", "per_task"), ("per_task", "shared")])
def test_biases_and_gains_are_repaired_as_the_policy_says_and_statistics_stay(biases, norms):
    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk, biases=biases, norms=norms)
    start = {key: value for key, value in own(trunk).items() if key[1] != "kernel"}
    adopt(net, epochs=1)
    adopted = own(net.task_model("imagenet").trunk)
    moved = {key for key in start if not np.array_equal(start[key], adopted[key])}
    assert moved == {key for key in start if key[1] not in ("moving_mean", "moving_variance")}
    # The next task begins with what is shared as repaired, and with the trunk's of the rest.
    second = own(net.add_task("next", layers.Dense(3)).trunk)
    for key in start:
        shared = (norms if key[0] == "norm1" else biases) == "shared"
        assert np.array_equal(second[key], (adopted if shared else start)[key])


@any_backend
def test_no_epochs_measure_the_damage_and_repair_nothing():
    trunk, _ = pretrained()
    net, unrepaired = packnet_tf.PackNet(trunk), packnet_tf.PackNet(trunk)
    done = adopt(net, epochs=0)
    unrepaired.adopt("imagenet", 0.5)
    assert done.error_repaired == done.error_pruned > 0.01
    assert same(committed(net), committed(unrepaired))


@any_backend
@pytest.mark.parametrize("norms", ["shared", "per_task"])
def test_the_next_task_starts_from_the_whole_trunk_again(norms, repaired):
    x = images()
    wanted = logits(repaired.trunk, x)
    net, done = repaired.net, repaired.done
    if norms == "shared":
        net = packnet_tf.PackNet(repaired.trunk, norms=norms)
        done = adopt(net)
    start = net.add_task("next", layers.Identity()).trunk
    assert relative_error(start, wanted, x) == pytest.approx(done.error_next, rel=1e-3)
    net.discard()
    assert done.error_next < 0.5 * done.error_repaired
    # Unrepaired it does so to the bit.
    net = packnet_tf.PackNet(repaired.trunk, norms=norms)
    assert adopt(net, epochs=0).error_next == 0
    assert np.array_equal(logits(net.add_task("next", layers.Identity()), x), wanted)


@any_backend
def test_free_weights_start_from_zero_where_the_policy_says_so():
    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk, restart="zero")
    assert adopt(net).error_next is None
    net.add_task("next", layers.Dense(3))
    for weight in net.state.weights.values():
        start = values([weight.trainable])[0][values([weight.claim])[0] == 2]
        assert not start.any()


@any_backend
@pytest.mark.parametrize(
    ("after", "kept"), [(0.2, 0.1), (0.1, 0.1), (float("nan"), 0.1), (0.05, 0.05)]
)
def test_what_the_next_task_starts_from_is_never_made_worse(after, kept, monkeypatch):
    found = iter([(0.3, 0.1), (0.1, after)])

    def match(student, *args, **fitting):
        for layer in student.packed_layers():
            trained = layer.packed_weights["kernel"].trainable
            trained.assign(trained + 1)
        return next(found)

    monkeypatch.setattr(adoption, "match", match)
    net = packnet_tf.PackNet(mlp_trunk())
    start = values(weight.packed for weight in net.state.weights.values())
    assert adopt(net).error_next == kept
    for weight, before in zip(net.state.weights.values(), start, strict=True):
        now, owner = values([weight.packed, weight.owner])
        assert np.array_equal(now[owner == 0], before[owner == 0] + (after == kept == 0.05))
        assert np.array_equal(now[owner == 1], before[owner == 1] + 1)


# -- Afterwards ----------------------------------------------------------------------------------


@any_backend
def test_later_tasks_leave_the_adopted_task_bit_for_bit_as_it_was(repaired, copied):
    x = images()
    before = logits(copied.task_model("imagenet"), x)
    optimizer = keras.optimizers.AdamW(0.05)
    two = compiled(copied.add_task("two", layers.Dense(3)), optimizer, jit_compile=JIT_COMPILE)
    fit(two, *data(repaired.trunk), packnet_tf.PackNetCallback(0.5, prune_epoch=1))
    pack_task(copied, "three", ratio=0)
    assert copied.tasks == ("imagenet", "two", "three")
    assert np.array_equal(logits(copied.task_model("imagenet"), x), before)


def test_the_adopted_task_is_saved_and_exported(repaired, tmp_path):
    from packnet_tf.export import export_onnx

    headless = packnet_tf.PackNet(repaired.trunk)
    headless.adopt("imagenet", 0.5)
    x = images()
    for name, net in {"head": repaired.net, "features": headless}.items():
        wanted = logits(net.task_model("imagenet"), x)
        net.save(tmp_path / f"{name}.keras")
        again = packnet_tf.load(tmp_path / f"{name}.keras")
        assert np.array_equal(logits(again.task_model("imagenet"), x), wanted)
        assert np.array_equal(logits(net.unpack("imagenet"), x), wanted)
        assert export_onnx(again, "imagenet", tmp_path / f"{name}.onnx", samples=x) < 1e-5


def test_what_was_measured_prints_as_a_table():
    done = adoption.Adoption("imagenet", 0.5, 5, 1.42593, 0.0421, 0.03)
    assert str(done).splitlines() == [
        "task imagenet, adopted",
        "-----------------------------------------------",
        "released                                  50.0%",
        "feature error after the prune             1.426",
        "epochs of repair                              5",
        "feature error after the repair           0.0421",
        "feature error the next task starts from    0.03",
    ]
    assert "not measured" in str(adoption.Adoption("imagenet", 0.5, 0, None, None))


def test_the_base_of_a_pack_is_the_adopted_trunk_and_layers_that_it_keeps_are_not_warned_of(
    tmp_path, recwarn
):
    net = packnet_tf.PackNet(mlp_trunk())
    first, *others = net.capacity()
    assert net.base is None
    net.adopt("base", {first: 0.0, **dict.fromkeys(others, 0.5)})
    assert net.base == "base"
    recwarn.clear()
    pack_task(net, "one", 0.5)
    assert not recwarn.list
    net.save(tmp_path / "pack.keras")
    assert packnet_tf.load(tmp_path / "pack.keras").base == "base"
    net.release("one")
    net.release("base")
    assert net.base is None
