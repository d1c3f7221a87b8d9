"""Rivals, run for real on small tasks: what they keep, what it takes, and what must not move."""

import functools

import keras
import numpy as np
import pytest

from helpers.cases import slow
from helpers.comparison_files import write_file, write_images
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.apps.research.methods import plain
from packnet_tf.apps.research.methods.job import Job
from packnet_tf.apps.research.methods.rivals import learning
from packnet_tf.apps.research.methods.rivals.approaches import APPROACHES
from packnet_tf.apps.research.methods.rivals.parts import Parts
from packnet_tf.apps.research.running.worker import work
from packnet_tf.apps.research.runs import entries

SHORT = {"epochs": 2, "prune_epoch": 1, "learning_rate": 0.05, "batch_size": 8}
# Of the small trunk: kernels of 3 x 3 x 3 x 8 and 3 x 3 x 8 x 12; a bias of 12 and
# four times 8 values of normalisation; a head from 12 features to two classes.
WEIGHTS, OWN, HEAD = 216 + 864, 12 + 4 * 8, 12 * 2 + 2
ADDED = {
    "batchnorm_only": 4 * (OWN + HEAD),
    "lora": 4 * (4 * (27 + 8) + 4 * (72 + 12) + OWN + HEAD),
    "piggyback": WEIGHTS // 8 + 4 * (OWN + HEAD),
    "supsup": WEIGHTS // 8 + 4 * (OWN + HEAD),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    keras.utils.set_random_seed(7)
    return write_images(tmp_path_factory.mktemp("rivals"))


def prepared(place, folder, method):
    path = write_file(place, methods={"it": method}, settings=SHORT)
    run = entries(read_comparison(path))[0].runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    run.write(folder / "run.json")
    return Job(run, folder)


@functools.cache
def trained(place, kind, **options):
    """The result of a run, its job, and the logits of every task's model right after training."""
    folder = place / "done" / kind
    job, real, answers = prepared(place, folder, {"method": kind, **options}), learning.fit, []

    def fit(model, task, *arguments, **more):
        seconds = real(model, task, *arguments, **more)
        answers.append(model.predict(task.test, verbose=0))
        return seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "fit", fit)
        return work(folder), job, answers


def opened(job):
    """The rival, its store read from its file, and a plain trunk with its parts."""
    trunk, approach = job.trunk(), APPROACHES[job.run.kind](job.run)
    parts = Parts(trunk, approach.norms)
    store = approach.begin(parts, True)
    shapes = approach.extra_shapes(parts), [tuple(variable.shape) for variable in parts.own]
    (path,) = job.folder.glob("after_*.npz")
    store.read(path, *shapes)
    return approach, store, parts, trunk


def check_answers(job, answers):
    """Every task, from the file, must answer as its model did right after its training."""
    approach, store, parts, trunk = opened(job)
    assert len(store.additions) == len(answers)
    for task, expected in zip(job.tasks, answers, strict=True):
        model = learning.show_task(approach, store, parts, trunk, task.place)
        assert np.array_equal(model.predict(task.test, verbose=0), expected)


@pytest.mark.parametrize("kind", slow("batchnorm_only", "lora", "piggyback", "supsup"))
def test_a_rival_without_an_order_adds_exactly_its_bytes_and_changes_nothing_shared(place, kind):
    result, job, answers = trained(place, kind)
    assert result["task_bytes"] == ADDED[kind]
    assert ADDED[kind] < result["bytes"] < result["one_network_bytes"]
    assert [len(row) for row in result["test"]] == [1]
    check_answers(job, answers)
    _, store, *_ = opened(job)
    if kind == "supsup":
        assert store.seed == job.run.seed
        sizes = sorted(float(abs(kernel).max()) for kernel in store.shared)
        np.testing.assert_allclose(sizes, [(2 / 36) ** 0.5, (2 / 13.5) ** 0.5], rtol=1e-6)
        assert [mask.mean() for mask in store.additions[0].extra] == [0.5, 0.5]
    else:
        came = [kernel.variable.numpy() for kernel in Parts(job.trunk(), "own").kernels]
        for ours, theirs in zip(store.shared, came, strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["cpg", *slow("wsn")])
def test_a_rival_with_an_order_forgets_nothing(place, kind):
    result, job, answers = trained(place, kind)
    assert [len(row) for row in result["test"]] == [1, 2]
    assert result["test"][1][0] == result["test"][0][0]
    check_answers(job, answers)
    _, store, *_ = opened(job)
    first, second = (addition.extra for addition in store.additions)
    assert result["task_bytes"] == 2 * (WEIGHTS // 8 + 4 * OWN) + 4 * (HEAD + 12 * 3 + 3)
    if kind == "wsn":
        assert sorted(mask.sum() for mask in first + second) == [108, 108, 432, 432]
    else:  # three quarters of what the first task had are released, and the second has them all
        assert sorted(mask.sum() for mask in first) == [54, 216]
        assert all((a | b).all() for a, b in zip(first, second, strict=True))
    for kernel, came, mask in zip(
        store.shared, [k.variable.numpy() for k in Parts(job.trunk(), "own").kernels], first,
        strict=True,
    ):  # fmt: skip
        assert np.any(kernel[mask] != came[mask])  # they have trained


@pytest.mark.slow
def test_a_rival_that_was_stopped_ends_as_if_it_had_not_been(place, tmp_path, monkeypatch, capsys):
    expected, job, _ = trained(place, "cpg")
    stopped = prepared(place, tmp_path, {"method": "cpg"})
    real, epochs = plain.TwoPhases.on_epoch_begin, []

    def power_cut(self, epoch, logs=None):
        epochs.append(epoch)
        if len(epochs) == 4:  # the second epoch of the second task
            raise OSError("the power is gone")
        real(self, epoch, logs)

    monkeypatch.setattr(plain.TwoPhases, "on_epoch_begin", power_cut)
    with pytest.raises(OSError, match="the power is gone"):
        work(tmp_path)
    capsys.readouterr()
    result = work(tmp_path)
    assert "epoch 1/2" not in capsys.readouterr().out
    assert result["test"] == expected["test"]
    ours, theirs = opened(stopped)[1], opened(job)[1]
    for a, b in zip(ours.shared, theirs.shared, strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(ours.additions, theirs.additions, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.extra, b.extra, strict=True))


@pytest.mark.slow
def test_weights_that_cpg_releases_are_zero_for_the_next_task(place, tmp_path):
    job = prepared(place, tmp_path, {"method": "cpg", "prune": [0.75, 0.5]})
    work(job.folder)
    _, store, *_ = opened(job)
    for kernel, *seen in zip(store.shared, *(task.extra for task in store.additions), strict=True):
        free = ~np.any(seen, axis=0)
        assert free.sum() == round(0.75 * kernel.size * 0.5)
        assert not kernel[free].any()


@pytest.mark.slow
def test_cpg_keeps_a_base_of_a_trained_trunk_and_picks_from_it(place, tmp_path):
    for name in ("shades", "greys"):
        (tmp_path / name).symlink_to(place / name)
    trunk = keras.saving.load_model(place / "small.keras")
    (norm,) = [x for x in trunk.layers if isinstance(x, keras.layers.BatchNormalization)]
    norm.gamma.assign(norm.gamma * 0.9)
    trunk.save(tmp_path / "small.keras")
    job = prepared(tmp_path, tmp_path / "run", {"method": "cpg", "score_rate": 0.02})
    work(job.folder)
    approach, store, *_ = opened(job)
    came = [kernel.variable.numpy() for kernel in Parts(job.trunk(), "own").kernels]
    picked = store.additions[0].extra
    for kernel, start, base, mask in zip(store.shared, came, approach.base, picked, strict=True):
        assert base.sum() == base.size - round(0.3 * base.size)
        assert np.array_equal(kernel[base], start[base])
        assert not mask[base].all()  # scores have fallen below the threshold


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (
            {"method": "supsup", "scores": "magnitude"},
            "method 'it': scores: magnitude cannot rank random weights, which all have one",
        ),
        ({"method": "cpg", "prune": "auto"}, "method 'it': prune: auto is for packnet alone."),
        (
            {"method": "wsn", "head": "pretrained"},
            "method 'it', shades: head: pretrained is not for wsn, which trains every task.",
        ),
        ({"method": "piggyback", "later": {"epochs": 3}}, "method 'it' has orders or later, and"),
    ],
)
def test_what_means_nothing_is_refused_with_the_remedy(place, method, text):
    with pytest.raises(ValueError) as error:
        read_comparison(write_file(place, methods={"it": method}, settings=SHORT))
    assert text in str(error.value)
