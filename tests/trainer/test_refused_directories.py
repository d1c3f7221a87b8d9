"""A directory that is another run's, or damaged, is refused; and what the refusal advises works."""

import dataclasses
import shutil

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
    pack_task,
    packed,
    weights_of,
)
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


# -- A pack that has changed since the run began -------------------------------------------------


def begun_with(net, folder):
    """Saves a pack, and begins a run with it that stops in task 'a'; returns file and directory."""
    file, directory = folder / "mine.keras", folder / "run"
    net.save(file)

    def power_cut(task, row):
        raise OSError("the power is gone")

    with pytest.raises(OSError, match="the power is gone"):
        quick(net, directory=directory, on_epoch=power_cut).fit(tasks(mlp_trunk(), "a"))
    return file, directory


def changed(directory, what):
    """The text of the refusal."""
    return (
        f"The pack has changed since the run in '{directory}' began: {what}. Pass the pack as it "
        f"was, a copy of which is '{directory / 'pack.keras'}', to continue the run; delete "
        f"'{directory}' to start it again, or take a new directory."
    )


def test_a_task_that_was_released_since_the_run_began_does_not_come_back(tmp_path):
    file, directory = begun_with(packed(mlp_trunk(), moss=0.5, fern=0.5), tmp_path)
    net = packnet_tf.load(file)
    net.release("fern")
    text = changed(directory, "it had the tasks 'moss', 'fern' then, and has 'moss' now")
    for _ in range(2):
        assert refused(directory, tasks(mlp_trunk(), "a"), net) == text
        assert net.tasks == ("moss",)
    net.release("moss")
    text = changed(directory, "it had the tasks 'moss', 'fern' then, and has none now")
    assert refused(directory, tasks(mlp_trunk(), "a"), net) == text

    as_it_was = packnet_tf.load(directory / "pack.keras")
    history = quick(as_it_was, directory=directory).fit(tasks(mlp_trunk(), "a"))
    assert as_it_was.tasks == ("moss", "fern", "a")
    assert len(history["a"]["epochs"]) == 3
    shutil.rmtree(directory)
    quick(net, directory=directory).fit(tasks(mlp_trunk(), "a"))
    assert net.tasks == ("a",)


def test_a_pack_whose_tasks_were_added_or_packed_anew_since_the_run_began_is_refused(tmp_path):
    file, directory = begun_with(packed(mlp_trunk(), moss=0.5), tmp_path)
    net = packnet_tf.load(file)
    pack_task(net, "hand")
    what = "it had the tasks 'moss' then, and has 'moss', 'hand' now"
    assert refused(directory, tasks(mlp_trunk(), "a"), net) == changed(directory, what)
    for name in ("hand", "moss"):
        net.release(name)
    pack_task(net, "moss", seed=9)
    what = "it has the same tasks ('moss'), but other weights, trunk or policy"
    assert refused(directory, tasks(mlp_trunk(), "a"), net) == changed(directory, what)


def test_tasks_that_the_run_has_packed_itself_are_there_again(tmp_path):
    file, directory = begun_with(packed(mlp_trunk(), moss=0.5), tmp_path)
    for names in (["a"], ["a", "b"]):
        net = packnet_tf.load(file)
        quick(net, directory=directory).fit(tasks(mlp_trunk(), *names))
        assert net.tasks == ("moss", *names)


def test_what_is_released_within_the_run_is_none_that_the_run_needs(tmp_path):
    net = packed(mlp_trunk(), moss=0.5, fern=0.5)
    _, directory = begun_with(net, tmp_path)
    net.discard()
    net.release("fern")
    quick(net, directory=directory).fit(tasks(mlp_trunk(), "b"))
    net.save(tmp_path / "since.keras")
    again = packnet_tf.load(tmp_path / "since.keras")
    quick(again, directory=directory).fit(tasks(mlp_trunk(), "b", "c"))
    assert again.tasks == ("moss", "b", "c")


def test_a_directory_without_a_note_of_its_beginning_goes_on(tmp_path):
    file, directory = begun_with(packed(mlp_trunk(), moss=0.5), tmp_path)
    (directory / "begun.json").unlink()  # as 0.2.0 left it
    for _ in range(2):
        net = packnet_tf.load(file)
        history = quick(net, directory=directory).fit(tasks(mlp_trunk(), "a"))
        assert net.tasks == ("moss", "a")
        assert len(history["a"]["epochs"]) == 3


@pytest.mark.parametrize("text", ["{", '{"tasks": "a"}', '{"places": 1}', '{"places": {"a": "b"}}'])
def test_a_damaged_note_of_the_beginning_is_refused_by_name(text, tmp_path):
    file, directory = begun_with(packed(mlp_trunk(), moss=0.5), tmp_path)
    note = directory / "begun.json"
    note.write_text(text)
    said = refused(directory, tasks(mlp_trunk(), "a"), packnet_tf.load(file))
    assert said.startswith(f"'{note}' is damaged: ")
    note.unlink()
    quick(packnet_tf.load(file), directory=directory).fit(tasks(mlp_trunk(), "a"))
