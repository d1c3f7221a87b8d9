"""A pretrained trunk becomes the first task without its training data."""

import functools
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf
from networks import NETWORKS, head_for, samples
from pack_helpers import (
    claims,
    compiled,
    conv_trunk,
    data,
    fit,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    packed_layers,
    same,
    values,
)
from packnet_tf import adoption
from packnet_tf.cloning import attach
from packnet_tf.matching import Matching
from packnet_tf.policy import own_weights

any_backend = pytest.mark.any_backend


@functools.cache
def trained_values():
    trunk = conv_trunk()
    model, head = attach(trunk, layers.Dense(3, name="logits"), "whole")
    x, y = data(trunk, size=200, seed=5)
    compiled(model, keras.optimizers.Adam(0.01), jit_compile="auto")
    fit(model, x, y, epochs=5, batch_size=20)
    return values(trunk.weights), values(head.weights)


def pretrained():
    """A little convolutional network, trained; returns its trunk and its head."""
    trunk = conv_trunk()
    head = layers.Dense(3, name="logits")
    head.build(trunk.output_shape)
    for part, trained in zip((trunk, head), trained_values(), strict=True):
        part.set_weights(trained)
    return trunk, head


def images(trunk=None, size=96):
    """Images of another kind than those of `pretrained`."""
    rng = np.random.default_rng(3)
    shape = (6, 6, 1) if trunk is None else trunk.input_shape[1:]
    return rng.uniform(-1, 2, size=(size, *shape)).astype("float32")


def adopt(net, **kwargs):
    if "images" not in kwargs:
        kwargs["images"] = images(net._trunk)
    kwargs = {"epochs": 8, "learning_rate": 0.01, **kwargs}
    return net.adopt("imagenet", verbose=0, **kwargs)


def own(trunk):
    """Values of all that is not packed, by layer and name."""
    return {(layer.name, v.name): values([v])[0] for layer, v in own_weights(trunk)}


def committed(net):
    """All that a pack has for good."""
    weights = net._weights.values()
    variables = [v for weight in weights for v in (weight.packed, weight.owner, weight.claim)]
    return values([*variables, *(v for _, v in own_weights(net._trunk))])


def refused(net, error_type, **kwargs):
    """The text of a refusal, after which the pack is as it was."""
    before, tasks = committed(net), net.tasks
    with pytest.raises(error_type) as error:
        adopt(net, **kwargs)
    assert same(committed(net), before)
    assert net.tasks == tasks
    assert net.open_model is None
    return str(error.value)


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
        owner = ops.convert_to_numpy(layer.packed["kernel"].owner)
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
def test_the_head_keeps_its_values_and_the_classes_their_names():
    trunk, head = pretrained()
    net = packnet_tf.PackNet(trunk)
    adopt(net, head=head, classes=["a", "b", "c"])
    model = net.task_model("imagenet")
    assert same(values(model.head.weights), values(head.weights))
    assert net.classes("imagenet") == ["a", "b", "c"]
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
def test_repair_brings_the_features_back_to_the_unpruned_trunks():
    trunk, _ = pretrained()
    net, unrepaired = packnet_tf.PackNet(trunk), packnet_tf.PackNet(trunk)
    done = adopt(net, prune_ratio=0.5)
    unrepaired.adopt("imagenet", 0.5)
    assert done.epochs == 8
    assert done.error_repaired < 0.5 * done.error_pruned

    x = images()
    wanted = logits(trunk, x)

    def error(pack):
        got = logits(pack.task_model("imagenet"), x)
        return np.mean((got - wanted) ** 2) / np.var(wanted)

    # The figures are those of the committed task.
    assert error(unrepaired) == pytest.approx(done.error_pruned, rel=1e-4)
    assert error(net) == pytest.approx(done.error_repaired, rel=1e-4)


@any_backend
def test_repair_leaves_released_weights_zero_and_the_choice_as_it_was():
    trunk, _ = pretrained()
    net, unrepaired = packnet_tf.PackNet(trunk), packnet_tf.PackNet(trunk)
    adopt(net)
    unrepaired.adopt("imagenet", 0.5)
    assert same(list(owners(net).values()), list(owners(unrepaired).values()))
    for layer in packed_layers(net.task_model("imagenet")):
        owner = ops.convert_to_numpy(layer.packed["kernel"].owner)
        kernel = ops.convert_to_numpy(layer.kernel)
        assert not kernel[owner == 0].any()
        start = values([trunk.get_layer(layer.name).kernel])[0]
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


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels), of uneven size."""

    def __len__(self):
        return 3

    def __getitem__(self, place):
        batch = images()[[slice(0, 50), slice(50, 95), slice(95, 96)][place]]
        return batch, np.full(len(batch), -1)


@any_backend
def test_images_may_come_in_uneven_batches_with_labels_that_count_for_nothing():
    trunk, _ = pretrained()
    net, other = packnet_tf.PackNet(trunk), packnet_tf.PackNet(trunk)
    done = adopt(net, images=Batches())
    measured = adopt(other, epochs=0)
    assert done.error_pruned == pytest.approx(measured.error_pruned, rel=1e-5)
    assert done.error_repaired < 0.5 * done.error_pruned


def test_images_may_be_a_dataset():
    import tensorflow as tf

    x = images()
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x))))
    trunk, _ = pretrained()
    done = adopt(packnet_tf.PackNet(trunk), images=dataset.batch(32))
    assert done.error_repaired < 0.5 * done.error_pruned


@any_backend
@pytest.mark.parametrize("name", ["wrappers around a model", "text encoder", "several outputs"])
def test_trunks_of_every_shape_are_repaired(name):
    trunk = NETWORKS[name][0]()
    x = samples(trunk, size=32)
    net = packnet_tf.PackNet(trunk, restart="zero")  # half the time
    done = adopt(net, images=x, epochs=8, learning_rate=0.003)
    assert 0 < done.error_repaired < 0.9 * done.error_pruned
    model = net.task_model("imagenet")
    keras.tree.assert_same_structure(model.output, trunk.output)
    net.add_task("next", head_for(trunk))
    net.prune(0.5)
    net.commit()
    assert net.tasks == ("imagenet", "next")


@any_backend
def test_a_trunk_in_mixed_precision_is_repaired():
    keras.config.set_dtype_policy("mixed_float16")
    trunk, _ = pretrained()
    done = adopt(packnet_tf.PackNet(trunk))
    assert done.error_repaired < 0.6 * done.error_pruned


@any_backend
def test_what_every_packed_layer_takes_in_is_matched_also_within_nested_models():
    block_in = keras.Input((8,), name="block_in")
    y = layers.Dense(8, activation="relu", name="inner1")(block_in)
    block = keras.Model(block_in, layers.Dense(8, name="inner2")(y), name="block")
    inputs = keras.Input((12,), name="features")
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    x = layers.LayerNormalization(name="norm")(block(x))
    row = keras.Sequential([keras.Input((8,)), layers.Dense(7), layers.Dense(6)], name="row")
    trunk = keras.Model(inputs, row(x), name="trunk")
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("imagenet", layers.Identity())
    matching = Matching(model.trunk, trunk)
    # Into the block, inner2, the row and its second layer (not into stem: that is the input).
    shapes = [tensor.shape for tensor in keras.tree.flatten(matching.student.output)]
    assert shapes == [(None, 8), (None, 8), (None, 8), (None, 7), (None, 6)]
    assert np.all(np.array(matching(images(trunk)))[:, :, 0] == 0)
    assert len(keras.tree.flatten(Matching(model.trunk, trunk, False).student.output)) == 1


@any_backend
@pytest.mark.parametrize("norms", ["shared", "per_task"])
def test_the_next_task_starts_from_the_whole_trunk_again(norms):
    trunk, _ = pretrained()
    x = images()
    wanted = logits(trunk, x)

    def error(net):
        start = logits(net.add_task("next", layers.Identity()), x)
        return np.mean((start - wanted) ** 2) / np.var(wanted)

    net = packnet_tf.PackNet(trunk, norms=norms)
    done = adopt(net)
    assert error(net) == pytest.approx(done.error_next, rel=1e-3)
    assert done.error_next < 0.5 * done.error_repaired
    # Unrepaired it does so to the bit.
    net = packnet_tf.PackNet(trunk, norms=norms)
    assert adopt(net, epochs=0).error_next == 0
    assert error(net) == 0


@any_backend
def test_free_weights_start_from_zero_where_the_policy_says_so():
    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk, restart="zero")
    assert adopt(net).error_next is None
    net.add_task("next", layers.Dense(3))
    for weight in net._weights.values():
        start = values([weight.trainable])[0][values([weight.claim])[0] == 2]
        assert not start.any()


# -- Afterwards ----------------------------------------------------------------------------------


@any_backend
def test_later_tasks_leave_the_adopted_task_bit_for_bit_as_it_was():
    trunk, head = pretrained()
    net = packnet_tf.PackNet(trunk)
    adopt(net, head=head)
    x = images()
    before = logits(net.task_model("imagenet"), x)
    two = compiled(
        net.add_task("two", layers.Dense(3)), keras.optimizers.AdamW(0.05), jit_compile="auto"
    )
    fit(two, *data(trunk), packnet_tf.PackNetCallback(0.5, prune_epoch=1))
    pack_task(net, "three", ratio=0)
    assert net.tasks == ("imagenet", "two", "three")
    assert np.array_equal(logits(net.task_model("imagenet"), x), before)


def test_the_adopted_task_is_saved_and_exported(tmp_path):
    from packnet_tf.export import export_onnx

    trunk, head = pretrained()
    for name, given in [("head", head), ("features", None)]:
        net = packnet_tf.PackNet(trunk)
        adopt(net, head=given)
        x = images()
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


# -- Refusals ------------------------------------------------------------------------------------


@any_backend
def test_a_trunk_is_adopted_before_any_other_task():
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    assert refused(net, RuntimeError) == (
        "Cannot adopt task 'imagenet': a pretrained trunk is adopted as the first task, and the "
        "pack has 'one', 'two'. Make a new pack, net = packnet_tf.PackNet(trunk), call "
        "net.adopt('imagenet', prune_ratio), then add the others."
    )


@any_backend
def test_a_trunk_is_not_adopted_while_a_task_is_open():
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    with pytest.raises(RuntimeError) as error:
        net.adopt("imagenet", 0.5)
    assert str(error.value) == (
        "Cannot add task 'imagenet': task 'one' is not committed yet (training). Finish it with "
        "net.prune(ratio) and net.commit(), or drop it with net.discard()."
    )
    assert net.open_model is model


@any_backend
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"prune_ratio": 1.5},
            "prune_ratio is the fraction of the task's claim that pruning releases, a number from "
            "0 to 1; got 1.5. Write prune_ratio=0.75 for three quarters.",
        ),
        *(
            (
                {"epochs": epochs},
                "epochs is how often the repair goes over the images, a whole number; got "
                f"{epochs!r}. Write epochs=5, or epochs=0 to measure the damage and not repair it.",
            )
            for epochs in (-1, 1.5, True, None)
        ),
        *(
            (
                {"learning_rate": rate},
                "learning_rate is that of the repair's first epoch, a number above 0; got "
                f"{rate!r}. Write learning_rate=0.0003.",
            )
            for rate in (0, -1, float("nan"), float("inf"), "fast")
        ),
        (
            {"head": layers.Dense(3)},
            "Cannot adopt task 'imagenet': its head is not built, so its weights would be random, "
            "and adopting trains no head. Give the head that the trunk was trained with, or leave "
            "it out: the task then answers with the trunk's features.",
        ),
        (
            {"head": "dense"},
            "Cannot add task 'imagenet': its head must be a Keras layer or model, for instance "
            "keras.layers.Dense(10); got 'dense'.",
        ),
        (
            {"classes": ["a", "b"]},
            "Cannot add task 'imagenet': 2 class names for 8 outputs. Give one name per output of "
            "the head.",
        ),
        *(
            (
                {"images": np.full((8, 12), value, "float32")},
                "Cannot match the trunk's features: on these images they are all the same, NaN or "
                "infinite. Give real images, with the pixel values that the trunk takes.",
            )
            for value in (0.0, np.nan)
        ),
    ],
    ids=lambda wrong: str(next(iter(wrong.items())))[:40] if isinstance(wrong, dict) else "",
)
def test_what_cannot_be_used_is_refused_and_changes_nothing(wrong, text):
    assert refused(packnet_tf.PackNet(mlp_trunk()), ValueError, **wrong) == text


@any_backend
def test_a_head_without_weights_need_not_be_built():
    net = packnet_tf.PackNet(mlp_trunk())
    net.adopt("imagenet", 0.5, head=layers.Softmax())
    assert net.tasks == ("imagenet",)


@any_backend
@pytest.mark.parametrize(("activation", "after"), [("linear", "nan"), ("sigmoid", None)])
def test_a_repair_that_makes_it_worse_is_refused_and_changes_nothing(activation, after):
    net = packnet_tf.PackNet(mlp_trunk(activation))
    text = refused(net, ValueError, prune_ratio=0.1, learning_rate=1e30)
    before = adopt(net, prune_ratio=0.1, epochs=0).error_pruned
    after = after or re.search(r" to ([0-9.e+]*)\. Give", text)[1]
    assert text == (
        "Cannot adopt task 'imagenet': the repair made the features worse, from a relative error "
        f"of {before:.4g} to {after}. Give a learning_rate below 1e+30, or leave the images out to "
        "prune without repair."
    )


@any_backend
@pytest.mark.parametrize("reads", [8, 16])  # in the repair, in what follows it
def test_a_repair_that_stops_half_way_changes_nothing(reads):
    class Unreadable(Batches):
        left = reads

        def __getitem__(self, place):
            self.left -= 1
            if self.left < 0:
                raise OSError("no such image")
            return super().__getitem__(place)

    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk)
    assert "no such image" in refused(net, Exception, images=Unreadable(), epochs=2)
    assert adopt(net).name == "imagenet"
