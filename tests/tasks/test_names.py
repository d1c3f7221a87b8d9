"""Names of classes in whatever form people have them."""

import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import mlp_trunk
from packnet_tf.tasks.names import check_portable, check_usable, class_names


@pytest.mark.parametrize(
    "given",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        np.array(["cat", "dog"]),
        {"dog": 1, "cat": 0},
        {1: "dog", 0: "cat"},
        {np.int64(1): "dog", np.int64(0): "cat"},
        {"cat": 0, "dog": 1}.keys(),
    ],
    ids=repr,
)
def test_names_come_in_output_order(given):
    assert class_names("pets", given) == ["cat", "dog"]


def test_names_that_are_numbers_are_names():
    assert class_names("digits", range(3)) == ["0", "1", "2"]
    assert class_names("digits", {"1": 0, "0": 1}) == ["1", "0"]
    assert class_names("digits", None) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ab", "are 'ab', which is no list. Give their names in output order"),
        ({"cat"}, "are {'cat'}, which have no order. Give their names in output order"),
        (3, "are 3, which is no list"),
        (["cat", "cat"], "have the same name: 'cat'. Give every output a name of its own"),
        ({"cat": 1, "dog": 2}, "neither keys nor values are the outputs 0 to 1"),
        ({"cat": 0, "dog": 0}, "neither keys nor values are the outputs 0 to 1"),
        ({"cat": 0.0, "dog": 1.0}, "neither keys nor values are the outputs 0 to 1"),
    ],
    ids=repr,
)
def test_what_does_not_say_which_output_is_which_class_is_refused(given, said):
    with pytest.raises(ValueError, match="task 'pets'") as error:
        class_names("pets", given)
    assert said in str(error.value)


def test_a_task_keeps_them_in_output_order():
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError, match="have the same name: 'x'"):
        net.add_task("pets", layers.Dense(2), classes=["x", "x"])
    assert net.open_model is None
    net.add_task("pets", layers.Dense(2), classes={"dog": 1, "cat": 0})
    net.commit()
    assert net.classes("pets") == ["cat", "dog"]


@pytest.mark.parametrize(
    "name",
    ["CON", "con", "Aux.birds", "nul.tar.gz", "COM1", "lpt9", "com¹", "birds.", "猫" * 70,
     "a b", "a\x1b", "x" * 101, ""],
)  # fmt: skip
def test_a_name_that_is_no_file_name_everywhere_is_refused(name):
    with pytest.raises(ValueError, match=r"Cannot add a task named .*Write 'my_task'") as error:
        check_portable(name)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["console", "com", "com10", "aux_birds", "v1.2", "猫" * 66])
def test_names_like_those_are_names(name):
    check_portable(name)


def test_a_pack_that_has_such_a_task_is_read():
    check_usable("con")


def test_messages_about_many_classes_are_short():
    for given in (
        ["cat"] * 2 + [f"class {n}" for n in range(10_000)] * 2,
        dict.fromkeys(range(10_000), 0.5),
    ):
        with pytest.raises(ValueError, match="task 'pets'") as error:
            class_names("pets", given)
        assert len(str(error.value)) <= 1000
