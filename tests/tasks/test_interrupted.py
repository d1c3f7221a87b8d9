"""Promise 11, in memory: a verb that is interrupted leaves a pack as before or as after."""

import copy
import pathlib
import sys

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import data, functional, jolt, logits
from helpers.pictures import picture
from packnet_tf.tasks import transaction

pytestmark = pytest.mark.any_backend
LIBRARY = str(pathlib.Path(packnet_tf.__file__).parent)
TRANSACTION = transaction.__file__
STRIDE = 3  # lines from one interrupt to the next; tests.torture draws its points at random


class Interrupted(BaseException):
    """What a Ctrl-C is, but for its name."""


def interrupt(line, verb, net) -> bool:
    """Runs a verb, interrupted at the line of that number; whether it was.

    Lines are counted from where the verb begins to change things.
    """
    lines = -1

    def trace(frame, event, _):
        nonlocal lines
        file = frame.f_code.co_filename
        if not file.startswith(LIBRARY):
            return None
        if event == "line" and (lines >= 0 or file == TRANSACTION):
            lines += 1
            if lines == line:
                sys.settrace(None)
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        verb(net)
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


def empty(**policy):
    keras.utils.set_random_seed(0)
    trunk = functional(layers.Dense(6, name="dense"), layers.BatchNormalization(name="norm"))
    return packnet_tf.PackNet(trunk, **policy)


def two_tasks():
    """A pack of two committed tasks."""
    net = empty()
    for number, name in enumerate(("one", "two")):
        jolt(net.add_task(name, layers.Dense(3, name="logits")), seed=number)
        net.prune(0.5)
        net.commit()
    return net


def first_pruned():
    net = empty(restart="zero")
    jolt(net.add_task("one", layers.Dense(3, name="logits")))
    net.prune(0.5)
    return net


def third_open():
    net = two_tasks()
    jolt(net.add_task("three", layers.Dense(3, name="logits")), seed=2)
    return net


def third_pruned():
    net = third_open()
    net.prune(0.5)
    return net


def fresh():
    """Freed weights are drawn anew when a task is added."""
    net = empty(restart="fresh")
    jolt(net.add_task("one", layers.Dense(3, name="logits")))
    net.prune(0.5)
    net.commit()
    return net


VERBS = {
    "add": (two_tasks, lambda net: net.add_task("three", layers.Dense(3, name="logits"))),
    "add, fresh": (fresh, lambda net: net.add_task("two", layers.Dense(3, name="logits"))),
    "prune": (third_open, lambda net: net.prune(0.5)),
    "prune again": (third_pruned, lambda net: net.prune_to(0.8)),
    "commit": (third_pruned, lambda net: net.commit()),
    "commit the first": (first_pruned, lambda net: net.commit()),
    "discard": (third_pruned, lambda net: net.discard()),
    "release": (two_tasks, lambda net: net.release("two")),
}
SLOW = ("add, fresh", "commit the first")


@pytest.mark.parametrize("name", [*sorted(VERBS.keys() - {*SLOW}), *slow(*SLOW)])
def test_a_verb_that_is_interrupted_is_undone_or_done(name):
    make, verb = VERBS[name]
    net = make()
    x, _ = data(net.task_model(net.tasks[0]) if net.tasks else net.open_model)
    answers = {name: logits(net.task_model(name), x) for name in net.tasks}
    before = picture(net)
    reference = copy.deepcopy(net)
    verb(reference)
    after = picture(reference)
    assert before != after

    line = done = undone = 0
    while interrupt(line, verb, net):
        now, line = picture(net), line + STRIDE
        if now == before:
            undone += 1
            continue
        done += 1
        assert {**now, "values": 0} == {**after, "values": 0}, f"line {line}"
        net = make()  # and go on with one that is as before
    assert undone > 20
    assert done <= 5  # on the way out of the block, and of the verb
    for name in set(answers) & set(net.tasks):
        assert np.array_equal(logits(net.task_model(name), x), answers[name])
    if net.open_model is None:  # and the pack is of use
        net.add_task("next", layers.Dense(3, name="logits"))
    net.commit()
    assert copy.deepcopy(net).tasks == net.tasks
