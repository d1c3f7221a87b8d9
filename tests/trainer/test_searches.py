"""Searches for a prune ratio and for the share of an overlay, in the trainer."""

import dataclasses

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.pack_helpers import conv_trunk, data, logits, packed
from helpers.short_runs import quick, tasks
from packnet_tf import Auto, Task
from packnet_tf.trainer.task_training import TaskTraining
from packnet_tf.training import checkpoint
from packnet_tf.training.overlay_search import SHARES, OverlaySearch
from packnet_tf.training.ratio_search import RatioSearch


@pytest.fixture
def accuracy_is_the_share(monkeypatch):
    """A task is as accurate as the share of all weights that it claims."""
    evaluate = TaskTraining._evaluate

    def share(training, data):
        is_open = training.net.state.open is not None
        claimed = training.net.state.claimed_share()[0] if is_open else 0.1
        return {**evaluate(training, data), "accuracy": claimed}

    monkeypatch.setattr(TaskTraining, "_evaluate", share)


def auto(max_drop):
    return Auto(max_drop, step=0.6, patience=2)


def full():
    keras.utils.set_random_seed(3)
    trunk = conv_trunk()
    return packed(trunk, one=0.0), *data(trunk, size=48)


def search(kind, max_drop, **settings):
    """Packs a task by a search; returns the pack, the history of the task, and old answers."""
    net, x, y = full()
    overlay = None
    if kind == "overlay":
        overlay = "auto"
    else:
        net = packnet_tf.PackNet(conv_trunk())
    before = [logits(net.task_model(name), x) for name in net.tasks]
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay=overlay)
    settings = {"directory": None, "prune": auto(max_drop), **settings}
    entry = quick(net, **settings).fit(task)["two"]
    for name, expected in zip(net.tasks, before, strict=False):
        assert np.array_equal(logits(net.task_model(name), x), expected)
    return net, entry


@pytest.mark.parametrize("prune", [auto(0.01), packnet_tf.polynomial_decay(0.0, 0.9, 0, 4)])
def test_an_overlay_of_a_given_share_is_chosen_once(prune):
    net, x, y = full()
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay=0.1)
    entry = quick(net, prune=prune).fit(task)["two"]
    assert "rounds" not in entry
    assert len(entry["epochs"]) == 3
    assert net.capacity().sum()["overlaid"]["two"] == round(0.1 * net.capacity().sum()["total"])


def found(entry):
    return [(row["sparsity"], row["kept"], row["epochs"]) for row in entry["rounds"]]


# -- The prune ratio -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_drop", "rounds"),
    [
        (1.0, [(1 - 0.4**number, True, 1) for number in range(1, 6)]),  # leaves 1 %
        (0.9, [(0.6, True, 1), (0.84, True, 1), (0.936, False, 2)]),
        (0.7, [(0.6, True, 1), (0.84, False, 2)]),
        (0.5, [(0.6, False, 2)]),
    ],
)
def test_auto_releases_as_much_as_accuracy_allows(max_drop, rounds, accuracy_is_the_share):
    net, entry = search("ratio", max_drop)
    assert found(entry) == [(pytest.approx(sparsity), *rest) for sparsity, *rest in rounds]
    ratio = max([row["sparsity"] for row in entry["rounds"] if row["kept"]], default=0.0)
    sizes = {path: np.size(owner) for path, owner in net.owners().items()}
    assert {path: int(np.sum(owner == 1)) for path, owner in net.owners().items()} == {
        path: size - round(ratio * size) for path, size in sizes.items()
    }
    assert entry["prune_ratio"] == pytest.approx(ratio, abs=0.01)
    phases = [row["phase"] for row in entry["epochs"]]
    tried = sum(epochs for *_, epochs in rounds)
    assert phases == ["training"] * 2 + ["retraining"] * (tried + 1)  # with that of the end
    assert entry["before_prune"]["accuracy"] == 1.0
    assert entry["after_prune"]["accuracy"] == pytest.approx(1 - ratio, abs=0.01)


def test_auto_retrains_what_it_has_found():
    net = packnet_tf.PackNet(conv_trunk())
    (task,) = tasks(conv_trunk(), "a", size=96)
    rates = {"learning_rate": 0.1, "retrain_learning_rate": 0.0}
    history = quick(net, epochs=12, prune=Auto(max_drop=0.02, step=0.5, patience=1), **rates).fit(
        [task]
    )
    entry = history["a"]
    kept = [row for row in entry["rounds"] if row["kept"]]
    before = entry["before_prune"]["accuracy"]
    assert before > 0.5  # it has learnt something that can be lost
    assert len(kept) < len(entry["rounds"]), entry["rounds"]
    expected = kept[-1]["retrained"] if kept else before
    assert entry["retrained"]["accuracy"] == pytest.approx(expected)  # retrained at a rate of 0
    assert entry["retrained"]["accuracy"] >= before - 0.02


# -- The share of an overlay ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_drop", "kept"),
    [(0.0, [True, False]), (0.06, [True, True, False]), (0.5, [True] * 4)],
)
def test_an_overlay_has_the_smallest_share_that_is_about_as_good_as_the_best(
    max_drop, kept, accuracy_is_the_share
):
    net, entry = search("overlay", max_drop, retrain_epochs=2)
    assert found(entry) == [(1 - s, is_kept, 2) for s, is_kept in zip(SHARES, kept, strict=False)]
    shares = [round(220 * share) for share in SHARES]
    assert net.capacity().sum()["overlaid"]["two"] == shares[sum(kept) - 1]
    assert len(entry["epochs"]) == 2 + 2 * len(kept)


def test_a_search_that_cannot_judge_is_refused():
    net, x, y = full()
    with pytest.raises(ValueError, match='overlay="auto" needs validation data, and task'):
        quick(net, directory=None).fit(Task("two", keras.layers.Dense(3), (x, y), overlay="auto"))
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay="auto")
    with pytest.raises(ValueError, match=r"retraining, and there is none.*overlay=0\.05"):
        quick(net, directory=None, retrain_epochs=0).fit(task)
    assert net.open_model is None


# -- Both ----------------------------------------------------------------------------------------

CLASSES = {"ratio": RatioSearch, "overlay": OverlaySearch}
KINDS = tuple(CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_begins_where_it_should(kind, accuracy_is_the_share, monkeypatch):
    starts, ends = [], []
    prune_to, verdict = packnet_tf.PackNet.prune_to, CLASSES[kind].verdict

    def begins(net, *args):
        starts.append(checkpoint.take(net.open_model))
        return prune_to(net, *args)

    def judged(phases):
        answer = verdict(phases)
        if answer:
            ends.append(checkpoint.take(phases.model))
        return answer

    monkeypatch.setattr(packnet_tf.PackNet, "prune_to", begins)
    monkeypatch.setattr(CLASSES[kind], "verdict", judged)
    _, entry = search(kind, 0.92)
    assert len(starts) == len(entry["rounds"]) > 2
    # The prune ratio is raised from round to round; each share of an overlay is chosen anew.
    expected = ends if kind == "ratio" else [starts[0]] * len(ends)
    for start, values in zip(starts[1:], expected, strict=False):
        assert all(map(np.array_equal, start, values))


@pytest.mark.parametrize(
    ("kind", "max_drop", "retrain_epochs"), [("ratio", 0.82, 0), ("overlay", 0.06, 1)]
)
def test_the_task_is_that_of_the_last_round_that_was_kept(
    kind, max_drop, retrain_epochs, accuracy_is_the_share, monkeypatch
):
    ends, real = [], CLASSES[kind].verdict

    def verdict(phases):
        answer = real(phases)
        ends.append((answer, [np.array(variable) for variable in phases.model.head.weights]))
        return answer

    monkeypatch.setattr(CLASSES[kind], "verdict", verdict)
    net, entry = search(kind, max_drop, retrain_epochs=retrain_epochs)
    assert [row["kept"] for row in entry["rounds"]][-1] is False
    expected = [weights for answer, weights in ends if answer][-1]
    found = [np.array(variable) for variable in net.task_model("two").head.weights]
    assert all(map(np.array_equal, found, expected))
    assert not all(map(np.array_equal, found, ends[-1][1]))


def interrupted(net, task, stop, epochs, **settings):
    """Trains until the data are asked for epoch `stop`."""
    import tensorflow as tf

    def train(number):
        if number == stop:
            raise KeyboardInterrupt
        return tf.data.Dataset.from_tensor_slices(task.train).batch(16)

    begun = dataclasses.replace(task, train=train, epochs=epochs)
    with pytest.raises(SystemExit):
        quick(net, **settings).fit(begun)


@pytest.mark.parametrize(("max_drop", "every"), [(0.92, 2), (0.0, 3)])
def test_a_search_interrupted_in_any_epoch_ends_as_one_that_was_not(
    max_drop, every, tmp_path, accuracy_is_the_share
):
    import tensorflow as tf

    x, y = data(conv_trunk(), size=48)
    as_data = lambda number: tf.data.Dataset.from_tensor_slices((x, y)).batch(16)  # noqa: E731
    whole = Task("two", keras.layers.Dense(3), as_data, (x, y), epochs=2)
    settings = {"prune": auto(max_drop), "optimizer": keras.optimizers.Adam, "batch_size": 16}

    def ended(directory, stop=None):
        keras.utils.set_random_seed(3)
        net = packnet_tf.PackNet(conv_trunk())
        if stop is not None:
            interrupted(net, dataclasses.replace(whole, train=(x, y)), stop, 2,
                        directory=directory, **settings)  # fmt: skip
            net = packnet_tf.PackNet(conv_trunk())
        entry = quick(net, directory=directory, **settings).fit(whole)["two"]
        losses = [row["loss"] for row in entry["epochs"]]
        return entry["rounds"], losses, logits(net.task_model("two"), x)

    rounds, losses, answers = ended(None)
    for stop in range(1, len(losses), every):
        found = ended(tmp_path / str(stop), stop)
        assert found[:2] == (rounds, losses), stop
        assert np.array_equal(found[2], answers), stop
