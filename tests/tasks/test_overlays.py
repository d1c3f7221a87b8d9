"""Tasks with overlays: values of their own for weights that other tasks own."""

import copy
import json

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    claims,
    compiled,
    conv_trunk,
    data,
    fit,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    pack_task,
    packed,
    same,
    state,
    values,
)

pytestmark = pytest.mark.any_backend


def full():
    """A pack whose two tasks own every weight, and inputs of it."""
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5, two=0.0)
    assert net.capacity().free == 0
    return net, data(trunk)[0]


def shown(model):
    """The kernels that a model shows."""
    return [values([layer.kernel])[0] for layer in model.trunk.packed_layers()]


def changed(net, name, other):
    """Where the kernels of two tasks differ."""
    pairs = zip(shown(net.task_model(name)), shown(net.task_model(other)), strict=True)
    return [mine != theirs for mine, theirs in pairs]


def test_a_full_pack_takes_any_number_of_tasks():
    net, x = full()
    with pytest.raises(ValueError, match="no free weights left") as error:
        net.add_task("three", layers.Dense(3))
    assert "add_task(..., overlay=0.05)" in error.value.__notes__[0]
    before = [values([w.packed, w.owner]) for w in net.state.weights.values()]
    answers = {name: logits(net.task_model(name), x) for name in net.tasks}
    for number in range(4):
        name = f"more{number}"
        model = pack_task(net, name, seed=number, overlay=0.1)
        answers[name] = logits(model, x)
    for name, expected in answers.items():
        for model in (net.task_model(name), net.unpack(name)):
            assert np.array_equal(logits(model, x), expected)
    after = [values([w.packed, w.owner]) for w in net.state.weights.values()]
    assert all(map(same, before, after))


def test_it_starts_from_the_tasks_that_it_sees():
    net, _ = full()
    for reuse in ("all", ["one"]):
        model = net.add_task("three", layers.Dense(3), overlay=0.1, reuse=reuse)
        seen = (1, 2) if reuse == "all" else (1,)
        for weight, kernel in zip(net.state.weights.values(), shown(model), strict=True):
            packed_, owner = values([weight.packed, weight.owner])
            assert np.array_equal(kernel, np.where(np.isin(owner, seen), packed_, 0))
        net.discard()


def test_the_prune_keeps_the_share_that_changed_most_over_all_layers():
    net, _ = full()
    model = net.add_task("three", layers.Dense(3), overlay=0.1)
    start = [kernel.copy() for kernel in shown(model)]
    jolt(model, seed=3)
    moved = shown(model)
    sizes = [np.abs(new - old) for new, old in zip(moved, start, strict=True)]
    released = net.prune(0.5)
    kept = [claim > 0 for claim in claims(net).values()]
    assert sum(map(np.count_nonzero, kept)) == round(0.1 * 320)
    assert sum(released.values()) == 320 - 32
    least = min(size[mask].min() for size, mask in zip(sizes, kept, strict=True) if mask.any())
    assert all(size[~mask].max() <= least for size, mask in zip(sizes, kept, strict=True))
    for old, new, mask, kernel in zip(start, moved, kept, shown(model), strict=True):
        assert np.array_equal(kernel, np.where(mask, new, old))


def test_only_the_places_train_after_the_choice():
    net, x = full()
    y = np.arange(len(x)) % 3
    model = compiled(
        net.add_task("three", layers.Dense(3), overlay=0.1),
        keras.optimizers.AdamW(0.05, weight_decay=0.3, use_ema=True, ema_overwrite_frequency=2),
    )
    fit(model, x, y)
    net.prune(0.0)
    chosen, before = shown(model), claims(net)
    fit(model, x, y)
    for old, new, claim in zip(chosen, shown(model), before.values(), strict=True):
        assert np.array_equal(old[claim == 0], new[claim == 0])
        assert not claim.any() or not np.array_equal(old, new)
    net.commit()
    kept = [claim > 0 for claim in before.values()]
    differ = changed(net, "three", "two")
    assert all(not np.any(diff & ~mask) for diff, mask in zip(differ, kept, strict=True))


def test_a_higher_ratio_keeps_fewer_and_a_second_prune_prunes_the_places():
    net, _ = full()
    jolt(net.add_task("three", layers.Dense(3), overlay=0.1))
    net.prune(0.95)
    assert net.capacity().sum()["claimed"] == 16
    net.prune(0.5)
    assert net.capacity().sum()["claimed"] == 8
    net.prune_to(0.5)
    assert net.capacity().sum()["claimed"] == 8
    net.prune_to(0.99)
    assert net.capacity().sum()["claimed"] == 320 - round(0.99 * 192) - round(0.99 * 128)
    net.commit()
    assert net.capacity().sum()["overlaid"] == {"three": 3}


def test_free_weights_stay_free_and_a_later_owner_of_them_is_not_seen():
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    x, _ = data(trunk)
    free = net.capacity().free
    model = pack_task(net, "two", overlay=0.2)
    assert net.capacity().free == free
    answers = logits(model, x)
    pack_task(net, "three", 0.0, seed=5)
    assert net.capacity().free == 0
    assert net.reused("three") == ("one",)
    for asked in (model, net.task_model("two"), net.unpack("two")):
        assert np.array_equal(logits(asked, x), answers)


def test_other_tasks_do_not_see_it():
    net, _ = full()
    pack_task(net, "three", overlay=0.3)
    four = net.add_task("four", layers.Dense(3), overlay=0.1)
    pairs = zip(shown(four), shown(net.task_model("two")), strict=True)
    assert all(np.array_equal(mine, theirs) for mine, theirs in pairs)
    net.discard()
    with pytest.raises(ValueError, match="reuse names 'three', which owns no weights"):
        net.add_task("four", layers.Dense(3), overlay=0.1, reuse=["three"])


def test_it_can_be_released_at_any_time():
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    x, _ = data(trunk)
    gone = pack_task(net, "two", overlay=0.2)
    held = {"three": pack_task(net, "three", 0.5, seed=5)}
    held["four"] = pack_task(net, "four", seed=8, overlay=0.1)
    answers = {name: logits(model, x) for name, model in held.items()}
    net.add_task("five", layers.Dense(3))
    net.release("two")  # beside an open task
    net.discard()
    assert net.tasks == ("one", "three", "four")
    for name, expected in answers.items():
        for model in (held[name], net.task_model(name)):
            assert np.array_equal(logits(model, x), expected)
    with pytest.raises(RuntimeError, match="the task was released"):
        logits(gone, x)
    with pytest.raises(ValueError, match=r"depend on its weights: 'three', 'four'\. .*'four'\)"):
        net.release("one")
    with pytest.raises(ValueError, match=r"'three': tasks packed after it depend .*: 'four'"):
        net.release("three")
    net.release("four")
    net.release("three")
    assert net.capacity().free == 0.5


def test_an_owner_is_released_below_an_overlay_that_does_not_see_it():
    net, x = full()
    model = pack_task(net, "three", overlay=0.1, reuse=["one"])
    answers = logits(model, x)
    net.release("two")
    pack_task(net, "four", 0.5, seed=9)
    assert np.array_equal(logits(model, x), answers)
    assert np.array_equal(logits(net.task_model("three"), x), answers)
    assert net.reused("four") == ("one",)


def test_files_hold_open_and_committed_overlays(tmp_path):
    net, x = full()
    pack_task(net, "three", overlay=0.1)
    pack_task(net, "four", overlay=0.3, reuse=["two"])
    for pruned in (False, True):
        model = net.add_task("five", layers.Dense(3), overlay=0.2)
        jolt(model, seed=4)
        if pruned:
            net.prune(0.0)
            jolt(model, seed=5)
        net.save(tmp_path / "pack.keras")
        again = packnet_tf.load(tmp_path / "pack.keras")
        for other in (again, copy.deepcopy(net)):
            assert other.capacity() == net.capacity()
            assert np.array_equal(logits(other.open_model, x), logits(model, x))
            assert same(list(claims(other).values()), list(claims(net).values()))
            for path, claim in claims(net).items():
                assert np.array_equal(
                    kernels(other)[path][claim > 0], kernels(net)[path][claim > 0]
                )
            for name in net.tasks:
                mine, theirs = (logits(pack.task_model(name), x) for pack in (net, other))
                assert np.array_equal(mine, theirs)
        if pruned:
            again.commit()
            net.commit()
            assert np.array_equal(logits(again.task_model("five"), x), logits(model, x))
            assert again.capacity() == net.capacity()
        else:
            net.discard()
    other = packed(mlp_trunk())
    other.restore(tmp_path / "pack.keras")
    assert other.tasks == ("one", "two", "three", "four")


def test_an_overlay_takes_its_places_and_values_in_the_file(tmp_path):
    """A dense kernel would take 4 bytes a weight; places take 1 bit or less."""
    trunk = keras.Sequential([keras.Input((256,)), layers.Dense(1024, name="wide")])
    net = packed(trunk, one=0.0)
    net.save(tmp_path / "one.keras")
    pack_task(net, "two", overlay=0.02)
    net.save(tmp_path / "two.keras")
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("one", "two")]
    places = round(0.02 * 256 * 1024)
    head = 4 * (1024 * 3 + 3)
    assert sizes[1] - sizes[0] < 4 * places + 1.1 * places + head + 2048
    storage = net.storage()["tasks"]
    assert 4 * places + head < storage["two"] < 4 * places + 1.1 * places + head


def test_a_damaged_overlay_is_refused(tmp_path):
    net, _ = full()
    pack_task(net, "three", overlay=0.1)
    record = net.state.record("three")
    net.state = net.state.with_committed("three", overlaid=record.overlaid[:-4])
    net.save(tmp_path / "pack.keras")
    with pytest.raises(ValueError, match=r"pack\.keras.*an overlay has \d+ bytes, but"):
        packnet_tf.load(tmp_path / "pack.keras")


def test_capacity_and_summary_count_it():
    net, _ = full()
    pack_task(net, "three", overlay=0.1)
    whole = net.capacity().sum()
    assert whole["overlaid"] == {"three": 32}
    assert whole["owned"]["three"] == whole["free"] == 0
    assert str(net.capacity()).splitlines()[-1].split() == [
        "all", "320", "50.0%", "50.0%", "+10.0%", "0.0%",
    ]  # fmt: skip
    assert json.loads(json.dumps(net.capacity().to_dict()))["sum"] == whole
    lines = []
    net.summary(lines.append)
    assert "overlay of 'three'" in lines[0]
    assert "+10.0%" in net._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlay": 1.5}, "overlay is the fraction of all packed weights that the task may over"),
        ({"overlay": "auto"}, "overlay is the fraction of all packed weights"),
        ({"overlay": 0.001}, "is none of the 320 packed weights"),
        ({"overlay": 0.0}, r"overlay=0\.0 is no weight at all"),
        ({"overlay": True}, r"Write overlay=0\.05 for a twentieth"),
        ({"overlay": 0.1, "claim_ratio": 0.5}, "it has no claim_ratio"),
        ({"overlay": 0.1, "reuse": "none"}, "it sees no earlier task"),
    ],
)
def test_overlays_that_cannot_be_are_refused(arguments, message):
    net, _ = full()
    before = state(net)
    with pytest.raises(ValueError, match=message):
        net.add_task("three", layers.Dense(3), **arguments)
    assert net.open_model is None
    assert same(state(net), before)


def test_the_first_task_has_none():
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError, match=r"it sees no earlier task.*net\.adopt\('base'\)"):
        net.add_task("one", layers.Dense(3), overlay=0.1)


def test_a_task_that_was_not_pruned_is_not_committed():
    net, _ = full()
    jolt(net.add_task("three", layers.Dense(3), overlay=0.1))
    with pytest.raises(RuntimeError, match=r"overrides 100\.0% .* net\.prune\(0\.0\)"):
        net.commit()
    net.prune(0.0)
    net.commit()


@pytest.mark.parametrize(("sparsity", "kept"), [(0.25, 160), (0.6, 128), (1.0, 0)])
def test_prune_to_counts_the_weights_of_all_layers_and_keeps_at_most_the_overlay(sparsity, kept):
    net, _ = full()
    jolt(net.add_task("three", layers.Dense(3), overlay=0.5))
    released = net.prune_to(sparsity)
    assert sum(released.values()) == 320 - kept
    assert sum(weight.claimed() for weight in net.state.weights.values()) == kept


def test_weights_from_before_the_choice_are_refused():
    net, _ = full()
    model = net.add_task("three", layers.Dense(3), overlay=0.1)
    jolt(model)
    kept = model.get_weights()
    net.prune(0.0)
    model.set_weights(kept)
    with pytest.raises(RuntimeError, match="it was pruned, but its weights have since been rest"):
        net.commit()


def test_a_criterion_of_ones_own_gets_the_changes_of_all_weights():
    net, _ = full()
    jolt(net.add_task("three", layers.Dense(3), overlay=0.1))
    calls = []

    def criterion(changes, claim, ratio):
        calls.append((changes.shape, int(claim.sum()), ratio))
        return packnet_tf.magnitude(-changes, claim, ratio)

    net.prune(0.0, criterion)
    assert calls == [((320,), 320, 0.9)]


def test_under_adam_changes_count_by_the_size_of_their_gradients():
    net, x = full()
    model = net.add_task("three", layers.Dense(3), overlay=0.1)
    optimizer = keras.optimizers.Adam(0.01)
    fit(compiled(model, optimizer), x, np.arange(len(x)) % 3)
    pairs = zip(optimizer._trainable_variables, optimizer._velocities, strict=True)
    averages = {id(variable): values([average])[0] for variable, average in pairs}
    scores = []
    for layer, other in zip(
        model.trunk.packed_layers(), net.task_model("two").trunk.packed_layers(), strict=True
    ):
        [weight] = layer.packed_weights.values()
        change = values([layer.kernel])[0] - values([other.kernel])[0]
        scores.append(np.abs(change) * np.sqrt(averages[id(weight.trainable)]))
    net.prune(0.0)
    kept = np.concatenate([claim.reshape(-1) > 0 for claim in claims(net).values()])
    flat = np.concatenate([score.reshape(-1) for score in scores])
    assert np.count_nonzero(kept) == 32
    assert flat[kept].min() >= flat[~kept].max()


def test_fit_and_a_schedule_pack_it():
    trunk = conv_trunk()
    net = packed(trunk, one=0.0)
    x, y = data(trunk)
    callbacks = {
        "two": packnet_tf.PackNetCallback(prune_epoch=1),
        "three": packnet_tf.PackNetCallback(
            schedule=lambda step: (step % 2 == 0, min(0.9, step / 4))
        ),
    }
    for name, callback in callbacks.items():
        model = compiled(net.add_task(name, layers.Dense(3), overlay=0.2))
        fit(model, x, y, callback, epochs=3)
        assert name in net.tasks
    total = net.capacity().sum()["overlaid"]
    assert total["two"] == round(0.2 * 220)
    assert 0 < total["three"] <= round(0.2 * 220)
