"""A directory that is another run's, or damaged, is refused; and what the refusal advises works."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import conv_trunk, data, logits, mlp_trunk, packed, weights_of
from helpers.short_runs import quick, tasks
from packnet_tf import Auto, Task
from packnet_tf.trainer.arguments import plain_setting
from packnet_tf.training import checkpoint


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory):
    """The directory of a run that was interrupted in its second epoch of task 'a'."""
    import tensorflow as tf

    directory = tmp_path_factory.mktemp("run")
    trunk = mlp_trunk()
    x, y = data(trunk)

    def stop(epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

    with pytest.raises(SystemExit) as ended:
        quick(packnet_tf.PackNet(trunk), directory=directory).fit(Task("a", layers.Dense(3), stop))
    assert ended.value.code == 130
    return directory


@pytest.fixture
def interrupted(interrupted_run, tmp_path):
    """A copy of it."""
    return shutil.copytree(interrupted_run, tmp_path / "run")


def refused(directory, task, net=None, **settings):
    """The text of a refusal, after which no task is open."""
    net = net or packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        quick(net, directory=directory, **settings).fit(task)
    assert net.open_model is None
    return str(error.value)


def test_an_interrupted_task_is_not_continued_with_other_epochs_of_its_own(interrupted):
    for epochs in (1, 5):
        [task] = tasks(mlp_trunk(), "a")
        text = refused(interrupted, dataclasses.replace(task, epochs=epochs))
        assert f"had epochs=2, this one has epochs={epochs}. Repeat the old settings" in text


def test_a_directory_of_another_pack_is_refused(tmp_path):
    packed(mlp_trunk(), a=0.5).save(tmp_path / "pack.keras")
    trunk = conv_trunk()
    assert refused(tmp_path, tasks(trunk, "a"), packnet_tf.PackNet(trunk)) == (
        f"'{tmp_path / 'pack.keras'}' is not a later state of this pack: its trunk, its policy "
        "or its first tasks ('a') differ. Use the trunk, the policy and the tasks that it was made "
        "with, or another directory."
    )


def test_an_interrupted_task_is_not_continued_with_other_settings(interrupted):
    assert refused(interrupted, tasks(mlp_trunk(), "a"), epochs=3) == (
        f"The interrupted run of task 'a' in '{interrupted}' had epochs=2, this one has epochs=3. "
        "Repeat the old settings to continue it, delete 'checkpoint.npz' to start the task again, "
        "or take a new directory."
    )


@pytest.mark.parametrize("phases", [{}, {"around_prune": {}, "rounds": [{"sparsity": 0.5}]}, None])
def test_a_checkpoint_with_phases_of_another_version_is_refused(interrupted, phases):
    path = interrupted / "checkpoint.npz"
    facts, values = checkpoint.load(path)
    facts["phases"] = phases
    facts["settings"]["prune"] = plain_setting(Auto(0.01))
    checkpoint.save(path, facts, values)
    x, y = data(mlp_trunk())
    task = Task("a", layers.Dense(3), (x, y), (x, y))
    text = refused(interrupted, task, prune=Auto(0.01))
    assert text.startswith(
        f"'{path}' has another state of the phases of task 'a' than this version"
    )
    assert text.endswith("or delete the file to start the task again.")


def test_a_checkpoint_that_would_change_a_committed_task_is_refused(tmp_path):
    import tensorflow as tf

    net = packed(mlp_trunk(), a=0.5)
    x, y = data(mlp_trunk())
    expected = logits(net.task_model("a"), x)

    def stop(epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

    with pytest.raises(SystemExit):
        quick(net, directory=tmp_path).fit(Task("b", layers.Dense(3), stop))
    path = tmp_path / "checkpoint.npz"
    facts, values = checkpoint.load(path)
    weights = [np.array(weight.packed) for weight in weights_of(net).values()]
    place = next(i for i, v in enumerate(values) if any(np.array_equal(v, w) for w in weights))
    values[place] = values[place] + 1
    checkpoint.save(path, facts, values)

    task, net = Task("b", layers.Dense(3), (x, y)), packnet_tf.load(tmp_path / "pack.keras")
    text = refused(tmp_path, task, net)
    assert text.startswith(f"'{path}' is damaged: it would change ")
    assert text.endswith("Delete it: task 'b' then starts again.")
    assert np.array_equal(logits(net.task_model("a"), x), expected)
    path.unlink()
    quick(net, directory=tmp_path).fit(task)
    assert np.array_equal(logits(net.task_model("a"), x), expected)


@pytest.mark.parametrize(
    ("units", "optimizer"),
    [(4, None), (3, keras.optimizers.SGD), (3, keras.optimizers.Adam)],
    ids=["head", "fewer_values", "more_values"],
)
def test_the_checkpoint_of_another_model_is_refused(interrupted, units, optimizer):
    x, y = data(mlp_trunk())
    other = Task("a", layers.Dense(units), (x, y))
    assert refused(interrupted, other, optimizer=optimizer) == (
        f"'{interrupted / 'checkpoint.npz'}' belongs to another model of task 'a': its head or its "
        "optimizer has changed since. Repeat the script as it was to continue, or delete the file "
        "to start the task again."
    )
    (interrupted / "checkpoint.npz").unlink()
    net = packnet_tf.PackNet(mlp_trunk())
    history = quick(net, directory=interrupted, optimizer=optimizer).fit(other)
    assert net.tasks == ("a",)
    assert [row["epoch"] for row in history["a"]["epochs"]] == [0, 1, 2]


def test_a_damaged_checkpoint_is_named(tmp_path):
    trunk = mlp_trunk()
    net = packed(trunk, a=0.5)
    net.save(tmp_path / "pack.keras")
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 cut short")
    text = refused(tmp_path, tasks(trunk, "b"), net)
    assert text.startswith(f"'{tmp_path / 'checkpoint.npz'}' is damaged: ")
    assert text.endswith(". Delete it: the task it belongs to then starts again.")


@pytest.mark.parametrize("content", ['{"a": {"epo', "7", "\xff"], ids=["cut", "number", "bytes"])
def test_a_damaged_history_is_named_and_can_be_deleted(tmp_path, content):
    trunk = mlp_trunk()
    net = packed(trunk, a=0.5)
    net.save(tmp_path / "pack.keras")
    (tmp_path / "history.json").write_bytes(content.encode("latin-1"))
    again = packnet_tf.PackNet(trunk)
    text = refused(tmp_path, tasks(trunk, "a"), again)
    assert text.startswith(f"'{tmp_path / 'history.json'}' is damaged: ")
    assert text.endswith(
        ". Restore it from a backup, or delete it: the measurements of packed tasks are then "
        "lost, but the tasks are not."
    )
    (tmp_path / "history.json").unlink()
    assert quick(again, directory=tmp_path).fit(tasks(trunk, "a")) == {}
    x, _ = data(trunk)
    assert np.array_equal(logits(again.task_model("a"), x), logits(net.task_model("a"), x))
