"""Which earlier tasks' weights a task sees: `add_task(reuse=...)`."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    conv_trunk,
    data,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    values,
)
from packnet_tf.packing.weight import ranges
from packnet_tf.tasks.reuse import seen_numbers

pytestmark = pytest.mark.any_backend

TASKS = ("base", "birds", "cars")


@pytest.mark.parametrize(
    ("reuse", "expected"),
    [
        ("all", (1, 2, 3, 4)),
        ("none", (4,)),
        ([], (4,)),
        (["cars", "base"], (1, 3, 4)),
        (TASKS, (1, 2, 3, 4)),
        (["birds", "birds"], (2, 4)),
    ],
)
def test_a_task_sees_those_it_names_and_itself(reuse, expected):
    assert seen_numbers(reuse, TASKS) == expected


@pytest.mark.parametrize(
    ("base", "expected"), [(None, (1, 2, 3, 4)), ("base", (1, 4)), ("birds", (2, 4))]
)
def test_auto_is_the_base_alone_if_there_is_one(base, expected):
    assert seen_numbers("auto", TASKS, base=base) == expected


def test_the_first_task_sees_itself():
    assert seen_numbers("all", ()) == seen_numbers("none", ()) == seen_numbers("auto", ()) == (1,)


@pytest.mark.parametrize(
    ("reuse", "message"),
    [
        ("birds", r"reuse='birds' is not \"all\", .*; for one task write reuse=\['birds'\]\."),
        (
            "every",
            r"reuse='every' is not \"all\", \"none\", \"auto\" or a list of names of earlier ",
        ),
        (["dogs"], r"reuse names 'dogs', which is not a committed task of the pack: 'base', .*"),
    ],
)
def test_names_that_are_none_are_refused(reuse, message):
    with pytest.raises(ValueError, match=message):
        seen_numbers(reuse, TASKS)


def test_a_refused_task_leaves_the_pack_as_it_was():
    net = packed(mlp_trunk(), one=0.5)
    with pytest.raises(ValueError, match="reuse names 'two'"):
        net.add_task("three", layers.Dense(3), reuse=["two"])
    assert net.open_model is None


def test_ascending_numbers_are_few_ranges():
    assert ranges([]) == []
    assert ranges([4]) == [(4, 4)]
    assert ranges([1, 2, 3, 5, 7, 8]) == [(1, 3), (5, 5), (7, 8)]


@pytest.mark.parametrize("reuse", ["all", "none", ["one"], ["two"], ["one", "three"]])
def test_kernels_show_the_weights_of_the_tasks_named_and_no_others(reuse):
    net = packed(conv_trunk(), one=0.5, two=0.5, three=0.5)
    model = net.add_task("four", layers.Dense(3), reuse=reuse)
    seen = seen_numbers(reuse, net.tasks)
    net.prune(0.5)
    for committed in (False, True):
        if committed:
            net.commit()
            model = net.task_model("four")
        stored = net.state.weights.items()
        for (path, weight), layer in zip(stored, model.trunk.packed_layers(), strict=True):
            packed_, owner = values([weight.packed, weight.owner])
            expected = np.where(np.isin(owner, seen), packed_, 0)
            if not committed:
                claimed, trained = values([weight.claim, weight.trainable])
                expected = np.where(claimed == 4, trained, expected)
            assert np.array_equal(values([layer.kernel])[0], expected), path
    assert net.reused("four") == tuple(net.tasks[number - 1] for number in seen[:-1])


def test_what_a_task_does_not_see_makes_no_difference_to_it():
    """Not even NaNs: trained beside one pack or another, it is the same to the bit."""
    x, _ = data(conv_trunk())
    answers = []
    for broken in (False, True):
        keras.utils.set_random_seed(0)
        net = packed(conv_trunk(), one=0.5, two=0.5)
        for weight in net.state.weights.values() if broken else ():
            weight.packed.assign(np.where(values([weight.owner])[0] == 2, np.nan, weight.packed))
        net.state = net.state.with_digests()  # or the commit would refuse them
        model = pack_task(net, "three", seed=7, reuse=["one"])
        answers.append([logits(model, x), logits(net.unpack("three"), x)])
    assert np.isfinite(answers[0]).all()
    assert np.array_equal(*answers)


def test_a_pack_that_is_read_again_sees_the_same(tmp_path):
    trunk = conv_trunk()
    net = packed(trunk, one=0.5, two=0.5)
    pack_task(net, "three", seed=20, reuse=["two"])
    model = net.add_task("four", layers.Dense(3), reuse="none")
    x, _ = data(trunk)
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert [loaded.reused(name) for name in loaded.tasks] == [(), ("one",), ("two",)]
    for name, ours in (("three", net.task_model("three")), ("four", model)):
        assert np.array_equal(logits(loaded.task_model(name), x), logits(ours, x))
    loaded.commit()
    assert loaded.reused("four") == ()
    assert list(owners(loaded)) == list(owners(net))


def test_a_linear_head_is_fitted_on_what_the_task_will_see():
    trunk = mlp_trunk()
    x, y = data(trunk, size=60)
    net = packed(trunk, one=0.5)
    pack_task(net, "two", 0.5, seed=5)
    heads = {}
    for reuse in ("all", "none"):
        heads[reuse] = packnet_tf.linear_head(net, (x, y), reuse=reuse)
        model = net.add_task("next", heads[reuse], reuse=reuse)
        right = np.mean(logits(model, x).argmax(-1) == y)
        net.discard()
        other = net.add_task("next", heads[reuse], reuse={"all": "none", "none": "all"}[reuse])
        assert right > np.mean(logits(other, x).argmax(-1) == y)
        net.discard()


def test_only_the_last_task_is_released_and_the_others_are_named():
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    pack_task(net, "three", seed=20, reuse=["two"])
    with pytest.raises(
        ValueError, match=r"'one': tasks packed after it depend on its .*: 'two'. R"
    ):
        net.release("one")
    pack_task(net, "four", seed=30, reuse=["one"])
    with pytest.raises(ValueError, match=r"'three': it is not the last one: 'four'. Release"):
        net.release("three")
    net.release("four")
    net.release("three")
