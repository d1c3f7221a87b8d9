"""Every method, run for real on small tasks: what it must do, exactly where that can be said."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.cases import slow
from helpers.comparison_files import write_file, write_images, write_trunk_without_norms
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.apps.research.definition import BETTER
from packnet_tf.apps.research.methods import distillation, packed, plain
from packnet_tf.apps.research.methods.distillation import distance
from packnet_tf.apps.research.methods.job import Job, accuracy
from packnet_tf.apps.research.methods.joint import OwnHead
from packnet_tf.apps.research.running.worker import work
from packnet_tf.apps.research.runs import entries

SHORT = {"epochs": 2, "prune_epoch": 1, "learning_rate": 0.05, "batch_size": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    keras.utils.set_random_seed(7)
    return write_images(tmp_path_factory.mktemp("comparison"))


def prepared(place, folder, method, **changes):
    """The first run of a method, in a folder of its own."""
    path = write_file(place, methods={"it": method}, **changes)
    run = entries(read_comparison(path))[0].runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    run.write(folder / "run.json")
    return run


@functools.cache
def result_of(place, kind, **options):
    folder = place / "done" / "-".join([kind, *map(str, options.values())])
    prepared(place, folder, {"method": kind, **options})
    result = work(folder)
    assert json.loads((folder / "result.json").read_text()) == result
    return result, folder


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path, capsys):
    folder = write_images(tmp_path)
    broken = folder / "shades" / "train" / "dark" / "00.png"
    broken.write_bytes(b"no image")
    job = Job(prepared(folder, tmp_path / "run", {"method": "packnet"}), tmp_path / "run")
    assert [len(task.folder.files["train"]) for task in job.tasks] == [23, 36]
    assert f"Skipped: '{broken}' is not a readable image" in capsys.readouterr().out


LEARN = {
    "packnet": packed.pack_tasks,
    "classifier_only": lambda job: plain.learn_in_sequence(job, plain.train_head),
}


@pytest.mark.parametrize("kind", LEARN)
def test_training_images_of_a_task_do_not_outlast_it(place, kind, tmp_path):
    job = Job(prepared(place, tmp_path, {"method": kind}, settings=SHORT), tmp_path)
    LEARN[kind](job)
    kept = [
        sorted(vars(task).keys() & {"train", "plain", "validation", "test"}) for task in job.tasks
    ]
    assert kept == [["test", "validation"]] * len(job.tasks)


def test_a_packed_task_below_its_head_overrides_weights_in_the_time_of_both_ways(
    place, tmp_path, monkeypatch
):
    real_begin = packed.begin

    def begin(*arguments, overlay, **more):
        begun = real_begin(*arguments, overlay=overlay, **more)
        return begun if overlay else dataclasses.replace(begun, kept_head=1.1)

    monkeypatch.setattr(packed, "begin", begin)
    prepared(place, tmp_path, {"method": "packnet"}, settings=SHORT)
    result = work(tmp_path)
    net = packnet_tf.load(tmp_path / "pack.keras")
    assert [record.name for record in net.state.overriding] == ["greys"]
    assert result["linear_heads"] == {"shades": BETTER}  # the first one sees nobody
    progress = tmp_path / "progress"
    entry = json.loads((progress / "history.json").read_text())["greys"]
    memory = json.loads((progress / "prepared.json").read_text())["greys"]
    assert entry["preparation_seconds"] > memory["before"] > 0
    assert result["seconds"]["greys"] > entry["preparation_seconds"]


@pytest.mark.parametrize("kind", ["packnet", "fine_tuning", "lwf"])
def test_methods_with_an_order_measure_every_task_after_every_task(place, kind):
    result, _ = result_of(place, kind)
    for split in ("validation", "test"):
        assert [len(row) for row in result[split]] == [1, 2]
        assert all(0 <= value <= 1 for row in result[split] for value in row)
    assert set(result["seconds"]) == {"shades", "greys"}
    assert result["network_per_task_bytes"] > result["bytes"] > 0


def test_packing_forgets_nothing_and_reports_the_prune(place):
    result, folder = result_of(place, "packnet")
    assert result["test"][1][0] == result["test"][0][0]
    assert result["ratios"]["greys"] == 0.0
    assert result["ratios"]["shades"] == pytest.approx(0.75, abs=0.01)
    assert set(result["moments"]["shades"]) == {"before_prune", "after_prune", "retrained"}
    net = packnet_tf.load(folder / "pack.keras")
    assert result["capacity"] == net.capacity().to_dict()
    assert result["bytes"] == (folder / "pack.keras").stat().st_size
    with np.load(folder / "filters.npz") as filters:
        assert set(filters.files) == {"trunk", "task shades", "task greys"}
        weight = net.state.trunk.packed_weights()["small/conv1"]
        owner = keras.ops.convert_to_numpy(weight.owner)
        first, second = filters["task shades"], filters["task greys"]
        assert np.array_equal(first[owner == 1], second[owner == 1])
        assert not np.any(first[owner != 1])


def test_what_packing_reports_is_what_the_views_answer(place):
    result, folder = result_of(place, "packnet")
    net = packnet_tf.load(folder / "pack.keras")
    job = Job(prepared(place, folder, {"method": "packnet"}), folder)
    found = [accuracy(net.task_model(task.name), task, "test") for task in job.tasks]
    assert found == result["test"][-1]


def test_an_individual_network_trains_all_weights_and_a_classifier_the_head_alone(place):
    individual, trained = result_of(place, "individual")
    frozen, still = result_of(place, "classifier_only")
    assert len(individual["test"]) == len(frozen["test"]) == 1
    start = keras.saving.load_model(place / "small.keras").get_layer("conv1").get_weights()[0]
    kernels = {}
    for name, folder in (("trained", trained), ("still", still)):
        model = keras.saving.load_model(folder / "after_1.keras")
        (conv,) = [layer for layer in model._flatten_layers() if layer.name == "conv1"]
        kernels[name] = conv.get_weights()[0]
    assert np.array_equal(kernels["still"], start)
    assert not np.array_equal(kernels["trained"], start)
    assert 0 < frozen["task_bytes"] < frozen["bytes"]


def test_the_first_head_of_lwf_is_fitted_on_features_as_lwf_has_them(place, tmp_path):
    """Normalisation stays in inference mode from the second task on, as in Keras's guide."""
    found = {}
    for kind, options in (("lwf", {}), ("guide", {}), ("lwf, trained", {"norms": "trained"})):
        method = {"method": kind.split(",")[0], **options}
        job = Job(prepared(place, tmp_path / kind, method), tmp_path / kind)
        trunk, task = job.trunk(), job.tasks[0]
        job.seed(0)
        found[kind] = plain.new_head(job, task, trunk, learnt=True).get_weights()
    same = [
        all(map(np.array_equal, found["lwf"], found[kind])) for kind in ("guide", "lwf, trained")
    ]
    assert same == [True, False]


def test_the_guide_trains_a_head_that_is_not_built_yet(place, tmp_path):
    settings = {**SHORT, "head": "linear"}
    job = Job(prepared(place, tmp_path, {"method": "guide"}, settings=settings), tmp_path)
    trunk = job.trunk()
    heads = [plain.new_head(job, job.tasks[0], trunk)]
    assert not heads[0].built
    assert plain.follow_guide(job, job.tasks[0], trunk, heads) > 0
    assert np.any(heads[0].get_weights()[1])


def test_joint_training_has_one_row_for_all_tasks(place):
    result, _ = result_of(place, "joint")
    assert [len(row) for row in result["test"]] == [2]
    assert set(result["seconds"]) == {"all"}


def test_an_example_trains_the_head_of_its_own_task_only():
    loss = OwnHead([2, 3])
    logits = keras.Variable(np.array([[1.0, 3.0, 9.0, 0.0, 0.0], [7.0, 7.0, 1.0, 2.0, 3.0]]))
    labels = np.array([1, 4])
    softmax = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    expected = [np.log(1 + np.exp(-2.0)), -np.log(softmax[2])]
    np.testing.assert_allclose(loss.call(labels, logits), expected, rtol=1e-5)
    assert np.array_equal(loss.accuracy(labels, logits), [1.0, 1.0])
    assert np.array_equal(loss.accuracy(np.array([0, 3]), logits), [0.0, 0.0])
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = tf.reduce_sum(loss.call(labels, logits))
    gradient = tape.gradient(value, logits.value).numpy()
    assert np.all(gradient[0, 2:] == 0)
    assert np.all(gradient[1, :2] == 0)
    assert np.all(gradient[0, :2] != 0)


def test_the_distance_of_softened_answers_is_least_where_they_agree():
    target = np.array([[2.0, 0.0]], "float32")
    p = 1 / (1 + np.exp(-1.0))  # both divided by the temperature of 2
    expected = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    np.testing.assert_allclose(distance(target, target, 2.0), expected, rtol=1e-6)
    assert distance(target, target + np.array([1.0, 0.0], "float32"), 2.0) > distance(
        target, target, 2.0
    )
    np.testing.assert_allclose(distance(target, target + 5, 2.0), expected, rtol=1e-6)


@pytest.mark.slow
def test_without_forgetting_the_old_answers_move_less_than_with_fine_tuning(place, tmp_path):
    """On the new task's images, which is all there is to hold them by.

    Without normalisation: its statistics are a batch's in training, and held by nothing.
    """
    write_trunk_without_norms(tmp_path / "plain.keras")
    for name in ("shades", "greys"):
        (tmp_path / name).symlink_to(place / name)
    trunk = {"network": "plain.keras", "output": "features"}
    path = write_file(tmp_path, methods={"joint": {}}, trunk=trunk)
    (run,) = entries(read_comparison(path))[0].runs
    images = Job(run, tmp_path).tasks[1].plain
    answers = {}
    # All three learn the first task alike, at a rate at which no draw of weights diverges.
    for kind, last in (("individual", 1), ("fine_tuning", 2), ("lwf", 2)):
        folder = tmp_path / kind
        prepared(tmp_path, folder, {"method": kind, "learning_rate": 0.001}, trunk=trunk)
        work(folder)
        model = keras.saving.load_model(folder / f"after_{last}.keras", compile=False)
        outputs = model.predict(images, verbose=0)
        answers[kind] = outputs[0] if last == 2 else outputs
    moved = {k: float(distance(answers["individual"], answers[k], 2.0)) for k in answers}
    assert moved["individual"] < moved["lwf"] < moved["fine_tuning"]


@pytest.mark.parametrize("kind", ["packnet", *slow("fine_tuning")])
def test_a_run_that_was_stopped_goes_on_after_the_last_task(place, tmp_path, monkeypatch, kind):
    expected, _ = result_of(place, kind)
    prepared(place, tmp_path, {"method": kind})
    module, name = {"packnet": (packed, "_learn"), "fine_tuning": (plain, "fit")}[kind]
    real, calls = getattr(module, name), []

    def power_cut(*arguments, **more):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("the power is gone")
        return real(*arguments, **more)

    monkeypatch.setattr(module, name, power_cut)
    with pytest.raises(OSError, match="the power is gone"):
        work(tmp_path)
    assert not (tmp_path / "result.json").exists()
    result = work(tmp_path)
    assert len(calls) == 3  # the first task was not trained again
    assert result["test"] == expected["test"]


@pytest.mark.parametrize("kind", slow("lwf", "fine_tuning"))
def test_a_run_that_was_stopped_while_it_was_measured_goes_on(place, tmp_path, monkeypatch, kind):
    expected, _ = result_of(place, kind)
    prepared(place, tmp_path, {"method": kind})
    real, calls = plain.accuracy, []

    def power_cut(*arguments):
        calls.append(arguments)
        if len(calls) == 4:  # the second task is trained
            raise OSError("the power is gone")
        return real(*arguments)

    monkeypatch.setattr(plain, "accuracy", power_cut)
    with pytest.raises(OSError, match="the power is gone"):
        work(tmp_path)
    result = work(tmp_path)
    assert result["test"] == expected["test"]


def test_the_filters_of_the_trunk_are_the_same_after_a_run_was_stopped(
    place, tmp_path, monkeypatch
):
    _, whole = result_of(place, "packnet")
    prepared(place, tmp_path, {"method": "packnet"})
    real, calls = packed._learn, []

    def power_cut(*arguments, **more):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("the power is gone")
        return real(*arguments, **more)

    monkeypatch.setattr(packed, "_learn", power_cut)
    with pytest.raises(OSError, match="the power is gone"):
        work(tmp_path)
    work(tmp_path)
    with np.load(whole / "filters.npz") as one, np.load(tmp_path / "filters.npz") as two:
        assert np.array_equal(one["trunk"], two["trunk"])


@pytest.mark.parametrize("kind", [*slow("individual", "lwf"), "joint"])
def test_a_plain_network_that_was_stopped_within_a_task_ends_as_if_it_had_not_been(
    place, tmp_path, monkeypatch, capsys, kind
):
    expected, _ = result_of(place, kind)
    prepared(place, tmp_path, {"method": kind})
    real, epochs = plain.TwoPhases.on_epoch_begin, []

    def power_cut(self, epoch, logs=None):
        epochs.append(epoch)
        if epoch == 2 and len(epochs) == (6 if kind == "lwf" else 3):
            raise OSError("the power is gone")
        real(self, epoch, logs)

    monkeypatch.setattr(plain.TwoPhases, "on_epoch_begin", power_cut)
    with pytest.raises(OSError, match="the power is gone"):
        work(tmp_path)
    capsys.readouterr()
    result = work(tmp_path)
    shown = capsys.readouterr().out
    assert "epoch 3/3" in shown
    assert "epoch 2/3" not in shown
    for split in ("validation", "test"):
        assert result[split] == expected[split]
    assert not list(tmp_path.glob("*.npz"))
    last = {"individual": "after_1.keras", "lwf": "after_2.keras"}.get(kind)
    if last:
        models = [keras.saving.load_model(f / last) for f in (tmp_path, result_of(place, kind)[1])]
        for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("norms", ["frozen", "trained"])
def test_the_teacher_of_lwf_stands_still_and_the_student_trains_what_it_should(
    place, tmp_path, norms
):
    method = {"method": "lwf", "norms": norms}
    job = Job(prepared(place, tmp_path, method), tmp_path)
    trunk = job.trunk()
    heads = [plain.new_head(job, task, trunk) for task in job.tasks]
    plain.with_heads(trunk, heads[:1]).save(tmp_path / "before.keras")
    parts, seen = [trunk, *heads], []
    every = {id(v) for part in parts for v in part.trainable_variables}
    (norm,) = [part for part in trunk._flatten_layers() if isinstance(part, distillation.NORMS)]
    before = norm.get_weights()

    class Watched(distillation.Student):
        def learn_from(self, teacher, options):
            super().learn_from(teacher, options)
            trainable = {id(v) for v in self.trainable_variables}
            seen.append((len(self.weights), trainable, teacher))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "Student", Watched)
        distillation.distil(job, job.tasks[1], trunk, heads)
    ((count, trainable, teacher),) = seen
    assert count == sum(len(part.weights) for part in parts)  # the teacher's are none of them
    own = {id(norm.gamma), id(norm.beta)}
    assert trainable == (every - own if norms == "frozen" else every)
    same = [np.array_equal(a, b) for a, b in zip(norm.get_weights(), before, strict=True)]
    assert same == [norms == "frozen"] * 4
    assert {id(v) for part in parts for v in part.trainable_variables} == every
    images = next(iter(job.tasks[1].validation))[0]
    start = keras.saving.load_model(tmp_path / "before.keras", compile=False)
    assert np.array_equal(teacher(images), start(images, training=False))
    assert not (tmp_path / "teacher.keras").exists()


def test_the_schedule_of_a_plain_network_is_that_of_packing(place, tmp_path):
    """Rates fall and begin again at a tenth, and the optimizer is fresh, where packing prunes."""
    run = prepared(place, tmp_path, {"method": "individual"})
    job = Job(run, tmp_path)
    task = job.tasks[0]
    seen = []

    class Watch(plain.TwoPhases):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            optimizer = self.model.optimizer
            moments = [np.any(v.numpy()) for v in optimizer.variables[2:]]
            seen.append((round(float(optimizer.learning_rate), 6), any(moments)))

    model = plain.with_heads(job.trunk(), [keras.layers.Dense(2)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "TwoPhases", Watch)
        plain.fit(model, task, tmp_path)
    assert seen == [(0.05, False), (0.005, True), (0.005, False)]


def test_a_pretrained_head_must_fit_the_classes(place, tmp_path):
    trunk = {"network": "small.keras", "output": "global_average_pooling2d"}
    tasks = {"shades": {"head": "pretrained"}, "greys": {}}
    prepared(place, tmp_path, {"method": "fine_tuning"}, trunk=trunk, tasks=tasks)
    with pytest.raises(ValueError) as error:
        work(tmp_path)
    assert str(error.value) == (
        "The classifier that the network came with has 5 outputs, and task 'shades' has 2 classes. "
        "head: pretrained is for the task that the network was trained on, with all its classes."
    )
