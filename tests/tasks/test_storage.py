"""Promise 7: files are ordinary, small and safe."""

import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.cases import POLICIES, slow
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
    nested_trunk,
    owners,
    pack_task,
    packed,
    run_python,
    same,
    state,
    values,
)
from packnet_tf.packing.weight import PackedWeight


@pytest.fixture
def saved(tmp_path):
    """A pack of two tasks, and its file."""
    net = packed(conv_trunk(), one=0.5, two=0.5)
    net.save(tmp_path / "pack.keras")
    return net, tmp_path / "pack.keras"


# -- Round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("biases", "norms", "restart"), POLICIES)
def test_every_task_comes_back_bit_for_bit(biases, norms, restart, tmp_path):
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk, biases=biases, norms=norms, restart=restart)
    pack_task(net, "one", classes=2, seed=1)
    net.add_task("two", layers.Dense(3), classes=["a", "b", "ö"])
    jolt(net.open_model)
    net.prune(0.5)
    net.commit()
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert loaded.tasks == net.tasks
    assert loaded.policy == net.policy
    assert loaded.open_model is None
    assert loaded.classes("one") is None
    assert loaded.classes("two") == ["a", "b", "ö"]
    assert loaded.capacity() == net.capacity()
    assert same(list(owners(loaded).values()), list(owners(net).values()))
    x, _ = data(trunk)
    for name in net.tasks:
        first, second = net.task_model(name), loaded.task_model(name)
        assert np.array_equal(logits(second, x), logits(first, x))
        assert same(values(second.variables), values(first.variables))
    # Later tasks go on in both alike, from the same restart values.
    for pack in (net, loaded):
        keras.utils.set_random_seed(5)
        pack_task(pack, "three", seed=9)
    assert np.array_equal(logits(loaded.task_model("three"), x), logits(net.task_model("three"), x))
    assert np.array_equal(logits(loaded.task_model("one"), x), logits(net.task_model("one"), x))


def test_every_kind_of_trunk_comes_back(trunk, tmp_path):
    net = packed(trunk, one=0.5, two=0.5)
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(str(tmp_path / "pack.keras"))
    x, _ = data(trunk)
    assert list(loaded.capacity()) == list(net.capacity())
    for name in net.tasks:
        assert np.array_equal(logits(loaded.task_model(name), x), logits(net.task_model(name), x))
        assert np.array_equal(logits(loaded.unpack(name), x), logits(net.task_model(name), x))


def test_a_pack_without_tasks_comes_back(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert loaded.tasks == ()
    assert loaded.capacity().free == 1.0
    loaded.add_task("one", layers.Dense(3))
    net.add_task("one", layers.Dense(3))
    assert same(list(kernels(loaded).values()), list(kernels(net).values()))


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "bfloat16", *slow("mixed_bfloat16", "float16")]
)
def test_other_precisions_come_back(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    trunk = conv_trunk()
    net = packed(trunk, one=0.5)
    net.save(tmp_path / "pack.keras")
    keras.config.set_dtype_policy("float32")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    x, _ = data(trunk)
    assert np.array_equal(logits(loaded.task_model("one"), x), logits(net.task_model("one"), x))
    assert loaded.task_model("one").trunk.layers[1].compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("phase", [0, 1], ids=["training", "retraining"])
@pytest.mark.parametrize("earlier", [*slow(0), 1], ids=["first_task", "second_task"])
def test_a_task_comes_back_in_the_middle(phase, earlier, tmp_path):
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    for number in range(earlier):
        pack_task(net, f"earlier{number}")
    model = compiled(net.add_task("open", layers.Dense(3), classes=["a", "b", "c"]))
    x, y = data(trunk)
    fit(model, x, y, epochs=1)
    if phase:
        net.prune(0.5)
        fit(model, x, y, epochs=1)
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert loaded.tasks == net.tasks
    assert loaded.open_model.name == "open"
    assert int(loaded.open_model.phase) == phase
    assert same(list(claims(loaded).values()), list(claims(net).values()))
    assert same(list(kernels(loaded).values()), list(kernels(net).values()))
    assert same(list(owners(loaded).values()), list(owners(net).values()))
    assert same(values(loaded.open_model.weights), values(model.weights))
    assert [v.path for v in loaded.open_model.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]
    assert np.array_equal(logits(loaded.open_model, x), logits(model, x))
    assert loaded.state.claimed_share() == net.state.claimed_share()

    for pack in (net, loaded):  # both go on alike
        compiled(pack.open_model, keras.optimizers.SGD(0.1))
        fit(pack.open_model, x, y, epochs=1, shuffle=False)
        pack.prune(0.5)
        pack.commit()
    assert same(list(owners(loaded).values()), list(owners(net).values()))
    assert loaded.classes("open") == ["a", "b", "c"]
    for name in net.tasks:
        assert np.array_equal(logits(loaded.task_model(name), x), logits(net.task_model(name), x))


def test_a_rollback_is_noticed_in_a_pack_that_was_loaded(tmp_path):
    """A pruned task knows that it was, also after it has been to disk and back."""
    net = packnet_tf.PackNet(mlp_trunk())
    before = net.add_task("one", layers.Dense(3)).get_weights()
    net.prune(0.5)
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    loaded.open_model.set_weights(before)
    with pytest.raises(RuntimeError, match="restored from before the prune"):
        loaded.commit()


def test_saving_twice_gives_the_same_pack(saved, tmp_path):
    net, path = saved
    loaded = packnet_tf.load(path)
    loaded.save(tmp_path / "again.keras")
    again = packnet_tf.load(tmp_path / "again.keras")
    assert same(state(again), state(loaded))
    assert same(list(owners(again).values()), list(owners(net).values()))


def test_saving_and_loading_calculate_no_kernel(saved, monkeypatch):
    net, path = saved

    calculated = []
    monkeypatch.setattr(PackedWeight, "view", lambda weight, task: calculated.append(task))
    net.save(path)
    packnet_tf.load(path)
    assert calculated == []


def test_a_pack_and_a_task_model_open_in_a_new_process_with_one_import(tmp_path):
    trunk = nested_trunk()
    net = packed(trunk, one=0.5, two=0.5)
    x, _ = data(trunk)
    jolt(net.add_task("open", layers.Dense(3)))
    net.save(tmp_path / "pack.keras")
    net.task_model("two").save(tmp_path / "two.keras")
    np.save(tmp_path / "x.npy", x)
    done = run_python(
        """
        import packnet_tf
        import sys
        net = packnet_tf.load(sys.argv[1] + "/pack.keras")
        import numpy as np
        x = np.load(sys.argv[1] + "/x.npy")
        models = [*map(net.task_model, net.tasks), net.open_model, net.unpack("two")]
        import keras
        models.append(keras.saving.load_model(sys.argv[1] + "/two.keras"))
        answers = [np.array(model(x, training=False)) for model in models]
        np.savez(sys.argv[1] + "/answers.npz", *answers)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    models = [*map(net.task_model, net.tasks), net.open_model, net.unpack("two")]
    models.append(net.task_model("two"))
    with np.load(tmp_path / "answers.npz") as answers:
        assert same(list(answers.values()), [logits(model, x) for model in models])


@pytest.mark.slow
def test_a_saved_task_model_opens_in_a_new_process_that_imports_keras_first(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    view = net.task_model("one")
    x, _ = data(view)
    view.save(tmp_path / "one.keras")
    np.save(tmp_path / "x.npy", x)
    done = run_python(
        """
        import keras, packnet_tf
        import sys, numpy as np
        model = keras.saving.load_model(sys.argv[1] + "/one.keras")
        answers = model(np.load(sys.argv[1] + "/x.npy"), training=False)
        np.save(sys.argv[1] + "/answers.npy", np.array(answers))
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "answers.npy"), logits(view, x))


def test_a_saved_task_model_stands_on_its_own(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    x, y = data(conv_trunk())
    compiled(net.task_model("one")).save(tmp_path / "one.keras")
    before = state(net)
    loaded = keras.saving.load_model(tmp_path / "one.keras")
    assert loaded.pack is None
    assert np.array_equal(logits(loaded, x), logits(net.task_model("one"), x))
    loaded.evaluate(x, y, verbose=0)
    jolt(loaded)
    assert same(state(net), before)


# -- Earlier states ------------------------------------------------------------------------------


def refused(net, path):
    """The text of the refusal to restore a file, after which the pack is as it was."""
    before = state(net)
    with pytest.raises(ValueError) as error:
        net.restore(path)
    assert same(state(net), before)
    return str(error.value)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_pack_becomes_a_later_state_of_itself(count, tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    for name in ("one", "two")[:count]:
        pack_task(net, name)
    net.save(tmp_path / "early.keras")
    for name in ("one", "two")[count:]:
        pack_task(net, name)
    net.note_results("one", test=0.5)
    net.note_metadata("one", size=(12, 12))
    x, _ = data(net.task_model("one"))
    net.save(tmp_path / "late.keras")
    early = packnet_tf.load(tmp_path / "early.keras")
    early.notes["since"] = "then"
    models = [early.task_model(name) for name in early.tasks]
    early.restore(tmp_path / "late.keras")
    assert early.notes["since"] == "then"
    assert early.results("one") == {"test": 0.5}
    assert early.metadata("one") == net.metadata("one")
    assert early.metadata("one")["size"] == [12, 12]
    for model in models:
        assert same([logits(model, x)], [logits(early.task_model(model.task_name), x)])
    assert early.tasks == ("one", "two")
    assert same(state(early), state(packnet_tf.load(tmp_path / "late.keras")))


@pytest.mark.parametrize(
    "one", [{"seed": 7}, {"ratio": 0.52}, {"ratio": 0.48}], ids=["values", "fewer", "more"]
)
def test_a_pack_whose_tasks_own_other_weights_is_not_restored(one, tmp_path):
    trunk, path = conv_trunk(), tmp_path / "pack.keras"
    packed(trunk, one=0.5, two=0.5).save(path)
    net = packnet_tf.PackNet(trunk)
    pack_task(net, "one", **one)
    pack_task(net, "two", seed=10)
    assert refused(net, path) == (
        f"'{path}' is not a later state of this pack: its trunk, its policy or its first tasks "
        "('one', 'two') differ. Use the trunk, the policy and the tasks that it was made with, or "
        "another directory."
    )


# -- Small ---------------------------------------------------------------------------------------


def two_large_layers():
    inputs = keras.Input((500,))
    x = layers.Dense(1000, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Dense(500)(x), name="million")


def many_layers():
    """As deep as real backbones: every array in a file has a price of its own."""
    x = inputs = keras.Input((250,))
    for _ in range(16):
        x = layers.BatchNormalization()(layers.Dense(250, use_bias=False)(x))
    return keras.Model(inputs, x, name="deep")


@pytest.mark.parametrize("make", [two_large_layers, many_layers])
def test_a_full_pack_of_four_tasks_is_at_most_7_percent_larger_than_its_trunk(make, tmp_path):
    trunk = make()
    trunk.save(tmp_path / "trunk.keras")
    net = packnet_tf.PackNet(trunk)
    for number, ratio in enumerate([3 / 4, 2 / 3, 1 / 2, 0]):
        pack_task(net, f"task{number}", ratio, seed=number)
    assert net.capacity().free == 0
    assert net.capacity().sum()["total"] == 1_000_000
    net.save(tmp_path / "pack.keras")
    own = sum(len(record.values) for record in net.state.committed)
    width, norms = (500, 1000) if make is two_large_layers else (250, 16 * 250)
    assert own == 4 * (width * 3 + 3 + 4 * norms) * 4
    size = {name: (tmp_path / f"{name}.keras").stat().st_size for name in ("trunk", "pack")}
    assert size["pack"] <= 1.07 * size["trunk"] + own


def test_owners_take_two_bits_a_weight_for_three_tasks(tmp_path):
    net = packed(mlp_trunk(), one=0.75, two=0.5, three=0.5)
    net.save(tmp_path / "pack.keras")
    with zipfile.ZipFile(tmp_path / "pack.keras") as file:
        file.extract("model.weights.h5", tmp_path)
    found = {}

    def note(name, item):
        if name.endswith("_owner"):
            found[item.size] = item.dtype

    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(note)
    assert found == {1 + 2 * 192 // 8: np.uint8, 1 + 2 * 128 // 8: np.uint8}


def test_a_committed_pack_stores_no_claim_and_nothing_that_trains(saved, tmp_path):
    _, path = saved
    names = []
    with zipfile.ZipFile(path) as file:
        assert set(file.namelist()) == {"metadata.json", "config.json", "model.weights.h5"}
        file.extract("model.weights.h5", tmp_path)
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visit(names.append)
    assert not any("claim" in name or "trainable" in name for name in names)


def with_block():
    """A trunk with a weight, and a layer within a layer, that its owner has frozen."""
    inputs = keras.Input((6, 8), name="sequence")
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    x = layers.Dense(8, name="dense")(attention(inputs, inputs))
    trunk = keras.Model(inputs, layers.GlobalAveragePooling1D()(x), name="trunk")
    trunk.get_layer("dense").bias.trainable = False
    attention.query_dense.trainable = False
    return trunk


@pytest.mark.parametrize("biases", ["shared", "per_task"])
def test_what_was_frozen_within_the_trunk_stays_frozen(biases, tmp_path):
    net = packnet_tf.PackNet(with_block(), biases=biases)
    for number in range(2):
        net.save(tmp_path / "pack.keras")
        loaded = packnet_tf.load(tmp_path / "pack.keras")
        names = [
            [
                variable.path
                for variable in one.add_task("x", layers.Dense(3, name="head")).trainable_variables
            ]
            for one in (net, loaded)
        ]
        assert names[0] == names[1]
        assert not [name for name in names[0] if "query" in name or name.endswith("dense/bias")]
        net.discard()
        pack_task(net, f"task{number}")
