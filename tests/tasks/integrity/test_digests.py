"""What is committed is known by its digest: nothing changes it unseen, in memory or in a file."""

import hashlib
import io
import json
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf
from helpers.pack_helpers import conv_trunk, data, logits, mlp_trunk, pack_task, packed
from packnet_tf.tasks.integrity.digests import digest_of, owned_digests

pytestmark = pytest.mark.any_backend

CLOSING = {
    "save": lambda net, path: net.save(path),
    "commit": lambda net, path: net.commit(),
    "release": lambda net, path: net.release("two"),
}


def first_weight(net):
    return next(iter(net.state.weights.values()))


def nudge(variable, where):
    """Changes one value by the smallest step, and keeps the rest."""
    values = np.array(ops.convert_to_numpy(variable))
    place = tuple(np.argwhere(where(values))[0])
    values[place] = np.nextafter(values[place], np.inf, dtype=values.dtype)
    variable.assign(values)


def owned_by(net, number):
    owner = ops.convert_to_numpy(first_weight(net).owner)
    return lambda values: (owner == number) & (values != 0)


@pytest.mark.parametrize("verb", CLOSING)
@pytest.mark.parametrize("number", [1, 2])
def test_no_closing_verb_takes_a_committed_weight_that_was_assigned(verb, number, tmp_path):
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    if verb == "commit":
        net.add_task("three", layers.Dense(3))
        net.prune(0.5)
    nudge(first_weight(net).packed, owned_by(net, number))
    name = ["one", "two"][number - 1]
    with pytest.raises(RuntimeError, match=f"weights of task '{name}' in layer 'first' have"):
        CLOSING[verb](net, tmp_path / "pack.keras")
    assert not (tmp_path / "pack.keras").exists()
    assert net.tasks == ("one", "two")


def test_no_closing_verb_takes_a_shared_weight_that_was_assigned(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    bias = net.state.unpacked_variables()[0]
    nudge(bias, lambda values: np.ones(values.shape, bool))
    with pytest.raises(RuntimeError, match="weights that all tasks share have changed"):
        net.save(tmp_path / "pack.keras")


def assign(model, place):
    """Changes a value of a committed task's model, which the pack does not share."""
    if place == "overlay":
        trainable, claim = next(iter(model.trunk.packed_weights().values())).trained
        nudge(trainable, lambda x: ops.convert_to_numpy(claim) > 0)
    elif place == "bias":
        nudge(model.trunk.get_layer("first").bias, lambda x: np.ones(x.shape, bool))
    else:
        model.head.set_weights([2 * array + 1 for array in model.head.get_weights()])


@pytest.mark.parametrize("verb", CLOSING)
@pytest.mark.parametrize("place", ["head", "bias", "overlay"])
def test_a_closing_verb_warns_of_a_model_whose_own_values_were_assigned(verb, place, tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    trained = pack_task(net, "three", overlay=0.2)
    pack_task(net, "two")
    if verb == "commit":
        net.add_task("four", layers.Dense(3))
        net.prune(0.5)
    x, _ = data(mlp_trunk())
    model = trained if place == "overlay" else net.task_model("three")
    answers = logits(net.task_model("three"), x)
    assign(model, place)
    with pytest.warns(UserWarning, match="A model of task 'three' does not answer") as caught:
        CLOSING[verb](net, tmp_path / "pack.keras")
    assert [one.filename for one in caught if one.category is UserWarning] == [__file__]
    assert np.array_equal(logits(net.task_model("three"), x), answers)


def test_models_that_were_used_and_plain_models_that_were_trained_are_not_warned_of(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    held, plain = net.task_model("one"), net.unpack("one")
    x, _ = data(conv_trunk())
    held.predict(x, verbose=0)
    plain.layers[-1].set_weights([2 * array + 1 for array in plain.layers[-1].get_weights()])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pack_task(net, "two", overlay=0.2)
        net.release("two")
        net.save(tmp_path / "pack.keras")


def test_a_pack_may_be_emptied_and_filled_again(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    net.release("one")
    pack_task(net, "other")
    net.save(tmp_path / "pack.keras")
    assert packnet_tf.load(tmp_path / "pack.keras").tasks == ("other",)


def test_the_digest_of_a_task_does_not_depend_on_others(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    before = net.state.record("one").owned_digest
    pack_task(net, "two")
    pack_task(net, "three", overlay=0.1, reuse=["one"])
    net.release("two")
    net.save(tmp_path / "pack.keras")
    net = packnet_tf.load(tmp_path / "pack.keras")
    assert net.state.record("one").owned_digest == before
    assert owned_digests(net.state.weights.values(), [1]) == [before]
    assert net.state.record("three").owned_digest == ""


def test_a_digest_is_that_of_the_json_and_the_bytes():
    expected = hashlib.sha256(b'{"a": [1, 2]}' + b"xy" + b"\x00\x00\x80\x3f").hexdigest()
    assert digest_of({"a": (1, 2)}, [b"xy", np.array([[1.0]], "float32")]) == expected


# -- Files ---------------------------------------------------------------------------------------


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path, content):
    with zipfile.ZipFile(path, "w") as file:
        for name, data_ in content.items():
            file.writestr(name, data_)


def arrays(content):
    """The names of the arrays of an HDF5 file that hold values."""
    names = []
    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(
            lambda name, item: (
                names.append(name) if isinstance(item, h5py.Dataset) and item.size else None
            )
        )
    return names


def with_edit(content, name, generator):
    """The file with one value of an array changed, by HDF5 itself."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        values = file[name][()].reshape(-1)
        place = generator.integers(values.size)
        if values.dtype.kind == "f":
            values[place] += 0.5
        else:
            values[place] ^= 1
        file[name][...] = values.reshape(file[name].shape)
    return buffer.getvalue()


@pytest.fixture
def saved(tmp_path):
    """The file of a pack with two committed tasks, an overlay, and an open task."""
    net = packed(conv_trunk(), one=0.5, two=0.5)
    pack_task(net, "three", overlay=0.2)
    net.add_task("four", layers.Dense(3))
    net.save(tmp_path / "pack.keras")
    return net, tmp_path / "pack.keras"


def test_every_edited_array_is_refused_though_all_checksums_are_right(saved):
    _, path = saved
    generator, content = np.random.default_rng(0), members(path)
    names = arrays(content["model.weights.h5"])
    assert len(names) > 10
    for name in names:
        edited = with_edit(content["model.weights.h5"], name, generator)
        write(path, content | {"model.weights.h5": edited})
        with pytest.raises(ValueError, match=r"pack\.keras") as error:
            packnet_tf.load(path)
        assert "not as packnet_tf saved it" in str(error.value) or "owner" in str(error.value), name


def leaves(value, place=()):
    """The places of all values of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, (dict, list)):
            yield from leaves(inner, (*place, key))
        else:
            yield (*place, key)


def test_an_edited_configuration_is_refused(saved):
    _, path = saved
    content = members(path)
    places = [p for p in leaves(json.loads(content["config.json"])) if p[0] == "config"]
    generator = np.random.default_rng(0)
    for number in generator.choice(len(places), 12, replace=False):
        config = json.loads(content["config.json"])
        inner = config
        for key in places[number][:-1]:
            inner = inner[key]
        old = inner[places[number][-1]]
        inner[places[number][-1]] = "other" if isinstance(old, str) else 7
        write(path, content | {"config.json": json.dumps(config)})
        with pytest.raises(ValueError, match=r"pack\.keras"):
            packnet_tf.load(path)


def test_answers_of_a_read_pack_are_those_of_the_saved_one(saved):
    net, path = saved
    keras.backend.clear_session()
    x, _ = data(conv_trunk())
    loaded = packnet_tf.load(path)
    for name in net.tasks:
        assert np.array_equal(logits(loaded.task_model(name), x), logits(net.task_model(name), x))
