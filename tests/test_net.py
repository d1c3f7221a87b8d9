"""The verbs add, prune, commit and discard, and promise 9 about them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    claims,
    compiled,
    conv_trunk,
    data,
    fit,
    functional,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    packed_layers,
    same,
    state,
    values,
)
from packnet_tf.tasks.integrity.names import model_name

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "-x", "a b", "x" * 101, 3, None])
def test_a_name_that_is_no_file_name_is_refused(name):
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        net.add_task(name, layers.Dense(3))
    assert str(error.value) == (
        f"Cannot add a task named {name!r}: the name must be usable as a file name, up to 100 "
        "letters, digits, '_', '-' and '.', not starting with '.' or '-'. Write 'my_task', for "
        "instance."
    )
    assert net.open_model is None


@pytest.mark.parametrize("name", ["birds", "task_1", "v1.2-final", "7", "Vögel", "_x", "鳥"])
def test_a_name_that_is_a_file_name_is_taken_and_its_task_trains(name):
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task(name, layers.Dense(3)))
    assert model.task_name == name
    x, y = data(model)
    fit(model, x, y, packnet_tf.PackNetCallback(0.5, 0), epochs=1)
    assert net.tasks == (name,)
    expected = model.predict(x, verbose=0)
    assert np.array_equal(net.task_model(name).predict(x, verbose=0), expected)
    assert np.array_equal(net.unpack(name).predict(x, verbose=0), expected)
    with pytest.raises(RuntimeError, match=f"set the weights of the model of task '{name}'"):
        model.set_weights(model.get_weights())


def test_the_model_of_a_task_has_its_name_where_tensorflow_takes_it():
    names = ["birds", "7", "v1.2-final", "Vögel", "Vogel", "_x", "鳥", "魚"]
    models = [model_name(name) for name in names]
    assert models[:3] == names[:3]
    assert models[3:] == ["V_f6gel", "Vogel", "task_x", "task_9ce5", "task_9b5a"]


def test_a_name_is_unique():
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    with pytest.raises(ValueError) as error:
        net.add_task("one", layers.Dense(3))
    assert str(error.value) == (
        "Cannot add task 'one': the pack has a task of that name. Its tasks are 'one', 'two'; "
        "choose another name."
    )


@pytest.mark.parametrize(("pruned", "phase"), [(False, "training"), (True, "retraining")])
def test_a_task_is_not_added_while_another_is_open(pruned, phase):
    net = packed(mlp_trunk(), one=0.5)
    net.add_task("two", layers.Dense(3))
    if pruned:
        net.prune(0.5)
    with pytest.raises(RuntimeError) as error:
        net.add_task("three", layers.Dense(3))
    assert str(error.value) == (
        f"Cannot add task 'three': task 'two' is not committed yet ({phase}). Finish it with "
        "net.prune(ratio) and net.commit(), or drop it with net.discard()."
    )
    assert net.open_model.name == "two"


def test_a_task_is_not_added_without_capacity():
    net = packed(mlp_trunk(), one=0)
    with pytest.raises(ValueError) as error:
        net.add_task("cars", layers.Dense(3))
    assert str(error.value) == (
        "Cannot add task 'cars': layer 'first' has no free weights left (capacity 0.0) (nor has "
        "one other layer). Use a higher prune_ratio for earlier tasks or a wider trunk."
    )


def test_a_task_is_not_added_without_capacity_as_the_design_says_it():
    net = packed(functional(layers.Dense(4, name="conv2")), one=0)
    with pytest.raises(ValueError) as error:
        net.add_task("cars", layers.Dense(3))
    assert str(error.value) == (
        "Cannot add task 'cars': layer 'conv2' has no free weights left (capacity 0.0). Use a "
        "higher prune_ratio for earlier tasks or a wider trunk."
    )


def test_a_layer_without_capacity_is_warned_of_while_others_have_some():
    trunk = functional(layers.Dense(1, name="tiny", use_bias=False), layers.Dense(8), shape=(1,))
    net = packed(trunk, one=0.5)  # round(0.5 * 1) is 0: the tiny layer keeps its one weight
    with pytest.warns(UserWarning, match="'two' cannot train every layer: layer 'tiny' has no"):
        net.add_task("two", layers.Dense(3))
    net.prune(0.5)
    net.commit()
    assert net.tasks == ("one", "two")


@pytest.mark.parametrize("head", [None, 10, "dense", layers.Dense], ids=str)
def test_a_head_that_is_no_layer_is_refused(head):
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        net.add_task("one", head)
    assert str(error.value) == (
        "Cannot add task 'one': its head must be a Keras layer or model, for instance "
        f"keras.layers.Dense(10); got {head!r}."
    )


def test_class_names_are_kept_and_counted():
    net = packnet_tf.PackNet(mlp_trunk())
    before = state(net)
    with pytest.raises(ValueError) as error:
        net.add_task("one", layers.Dense(3), classes=["a", "b"])
    assert str(error.value) == (
        "Cannot add task 'one': 2 class names for 3 outputs. Give one name per output of the head."
    )
    assert net.open_model is None
    assert same(state(net), before)
    net.add_task("one", layers.Dense(3), classes=["a", "b", "c"])
    net.commit()
    assert net.classes("one") == ["a", "b", "c"]


def test_a_refused_task_leaves_the_pack_as_it_was():
    net = packed(mlp_trunk(), one=0.5)
    before = state(net)
    misfit = keras.Sequential([keras.Input((99,)), layers.Dense(3)])
    with pytest.raises(ValueError):  # in Keras's own words
        net.add_task("two", misfit)
    assert net.open_model is None
    assert same(state(net), before)
    pack_task(net, "two")


# -- Prune, commit, discard ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["prune", "commit", "discard"])
def test_a_verb_without_an_open_task_is_refused(verb):
    net = packed(mlp_trunk(), one=0.5)
    with pytest.raises(RuntimeError) as error:
        getattr(net, verb)(*([0.5] if verb == "prune" else []))
    assert str(error.value) == (
        f"Nothing to {verb}: no task is open. Call net.add_task(name, head) first."
    )


def test_a_wrong_ratio_prunes_nothing():
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", layers.Dense(3))
    before = state(net)
    with pytest.raises(ValueError, match="prune_ratio is the fraction of the task's claim"):
        net.prune(1.5)
    assert same(state(net), before)


@pytest.mark.parametrize("ratio", [0, 0.3, 0.5, 0.75, 1])
def test_prune_releases_exactly_the_rounded_share_of_every_layers_claim(trunk, ratio):
    net = packed(trunk, one=0.5)
    jolt(net.add_task("two", layers.Dense(3)))
    before, trained, earlier = claims(net), kernels(net), owners(net)
    released = net.prune(ratio)
    after = claims(net)
    assert list(released) == list(before)
    for path, count in released.items():
        claimed = np.count_nonzero(before[path])
        gone = (before[path] > 0) & (after[path] == 0)
        kept = after[path] > 0
        assert count == round(ratio * claimed) == np.count_nonzero(gone)
        assert np.count_nonzero(kept) == claimed - count
        assert not np.any(kept & (before[path] == 0))
        if gone.any() and kept.any():
            assert np.abs(trained[path][gone]).max() <= np.abs(trained[path][kept]).min()
    assert same(list(owners(net).values()), list(earlier.values()))


def test_released_weights_count_as_zero_in_every_view_until_a_later_task_claims_them():
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    jolt(model)
    trained = kernels(net)
    net.prune(0.5)
    for layer in packed_layers(model):
        (path,) = [
            p
            for p, w in net.state.weights.items()
            if w.claim is layer.packed_weights["kernel"].claim
        ]
        claim = claims(net)[path]
        expected = np.where(claim == 1, trained[path], 0)
        assert np.array_equal(layer.kernel, expected)
    net.commit()
    for layer in packed_layers(net.task_model("one")):
        owner = keras.ops.convert_to_numpy(layer.kernel_owner)
        assert np.array_equal(layer.kernel == 0, owner == 0)
    jolt(net.add_task("two", layers.Dense(3)))
    for layer in packed_layers(net.open_model):
        assert np.all(keras.ops.convert_to_numpy(layer.kernel) != 0)


def test_pruning_twice_releases_of_what_is_left():
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", layers.Dense(3))
    assert net.prune(0.5) == {"first": 96, "second": 64}
    assert net.prune(0.25) == {"first": 24, "second": 16}
    net.commit()
    assert net.capacity()["first"]["owned"] == {"one": 72}


def test_a_task_may_keep_all_it_claimed_without_a_prune():
    net = packed(mlp_trunk(), one=0.5)
    net.add_task("last", layers.Dense(3))
    net.commit()
    assert net.capacity().free == 0.0


def test_a_discarded_task_leaves_the_pack_as_it_was():
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    before = net.capacity(), owners(net), [values([w.packed]) for w in net.state.weights.values()]
    x, _ = data(trunk)
    first = logits(net.add_task("two", layers.Identity()), x)
    jolt(net.open_model)
    net.prune(0.5)
    net.discard()
    assert net.open_model is None
    assert net.tasks == ("one",)
    assert net.capacity() == before[0]
    assert same(list(owners(net).values()), list(before[1].values()))
    for weight, expected in zip(net.state.weights.values(), before[2], strict=True):
        assert same(values([weight.packed]), expected)
    assert np.array_equal(logits(net.add_task("two", layers.Identity()), x), first)


def test_an_unknown_task_is_named_with_those_there_are():
    net = packed(mlp_trunk(), one=0.5)
    for look in (net.task_model, net.unpack, net.classes):
        with pytest.raises(ValueError) as error:
            look("two")
        assert str(error.value) == ("There is no committed task 'two'. Committed tasks: 'one'.")
    net.add_task("two", layers.Dense(3))
    with pytest.raises(ValueError) as error:
        net.unpack("two")
    assert str(error.value) == (
        "There is no committed task 'two'. It is still open: call net.commit() first. Committed "
        "tasks: 'one'."
    )
    with pytest.raises(ValueError, match="Committed tasks: none yet"):
        packnet_tf.PackNet(mlp_trunk()).task_model("one")


def test_a_task_model_behaves_as_a_keras_model():
    net = packnet_tf.PackNet(conv_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)))
    x, y = data(model)
    history = fit(model, x, y, epochs=1, validation_split=0.25)
    assert set(history.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert set(model.evaluate(x, y, verbose=0, return_dict=True)) == {"accuracy", "loss"}
    assert model.predict(x, verbose=0).shape == (24, 3)
    lines = []
    model.summary(print_fn=lambda line, **kwargs: lines.append(line))
    assert "conv" in "\n".join(lines)
    assert isinstance(model, keras.Model)
    assert model.input_shape == (None, 6, 6, 1)


steps = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["commit", "commit", "twice", "discard", "no_prune"]),
        st.integers(0, 1000),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=25)
@given(steps)
@pytest.mark.filterwarnings("ignore:Task .* cannot train every layer")
def test_free_and_owned_weights_add_up_and_owners_never_change_once_set(sequence):
    trunk = functional(layers.Dense(5, name="a"), layers.Dense(3, name="b"), shape=(4,))
    x, _ = data(trunk, size=4)
    net = packnet_tf.PackNet(trunk)
    totals = {"a": 20, "b": 15}
    answers = {}
    for number, (ratio, course, seed) in enumerate(sequence):
        before = owners(net)
        if net.capacity().free == 0:
            with pytest.raises(ValueError, match="no free weights left"):
                net.add_task(f"t{number}", layers.Dense(2))
            break
        jolt(net.add_task(f"t{number}", layers.Dense(2)), seed)
        if course != "no_prune":
            net.prune(ratio)
        if course == "twice":
            net.prune(ratio)
        if course == "discard":
            net.discard()
        else:
            net.commit()
            answers[f"t{number}"] = logits(net.task_model(f"t{number}"), x)
        after, capacity = owners(net), net.capacity()
        for path, total in totals.items():
            owned = before[path] > 0
            assert np.array_equal(after[path][owned], before[path][owned])
            entry = capacity[path]
            assert entry["free"] + sum(entry["owned"].values()) == entry["total"] == total
            assert entry["claimed"] == 0
            assert entry["free"] == np.count_nonzero(after[path] == 0)
        assert net.tasks == tuple(answers)
        for name, expected in answers.items():
            assert np.array_equal(logits(net.task_model(name), x), expected)


def test_notes_may_be_changed_and_replaced():
    net = packnet_tf.PackNet(mlp_trunk())
    net.notes["a"] = "1"
    net.notes |= {"b": "2"}
    assert net.notes == {"a": "1", "b": "2"}
    net.notes = {"c": "3"}
    net.add_task("one", layers.Dense(3))
    net.commit()
    assert net.notes == {"c": "3"}


def test_a_pack_shows_its_tasks():
    net = packnet_tf.PackNet(mlp_trunk())
    name = net.state.trunk.name
    assert repr(net) == f"<PackNet of trunk '{name}': no tasks yet>"
    pack_task(net, "one")
    net.add_task("three", layers.Dense(3))
    net.prune(0.5)
    assert repr(net) == f"<PackNet of trunk '{name}': tasks one; task three open (retraining)>"


def test_the_open_model_cannot_be_replaced():
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", layers.Dense(3))
    with pytest.raises(AttributeError):
        net.open_model = None


def test_notes_results_and_metadata_that_no_file_can_hold_are_refused():
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("one", layers.Dense(3))
    with pytest.raises(ValueError, match=r"notes of a pack are a dict of strings; got None"):
        net.notes = None
    with pytest.raises(ValueError, match=r"dict of strings; got {'pixel_range': \[0, 1\]}"):
        net.notes = {"pixel_range": [0, 1]}
    net.commit()
    with pytest.raises(ValueError, match="The result 'test' of task 'one' is 'much'"):
        net.note_results("one", test="much")
    with pytest.raises(ValueError, match="Metadata of task 'one' cannot be saved: 'at' is"):
        net.note_metadata("one", at=object())


@pytest.mark.parametrize("reuse", [None, 3])
def test_what_is_no_choice_of_tasks_is_refused(reuse):
    net = packnet_tf.PackNet(mlp_trunk())
    for verb in (
        lambda: net.add_task("one", layers.Dense(3), reuse=reuse),
        lambda: net.preview(reuse=reuse),
    ):
        with pytest.raises(ValueError, match=f'reuse={reuse} is not "all", "none", "auto" or'):
            verb()
