"""Networks of their own beside a trained trunk: the best of what can be had, and no less."""

import keras
import pytest

from helpers.cases import slow
from helpers.comparison_files import write_file, write_images
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.apps.research.definition import BETTER, DIVERGED
from packnet_tf.apps.research.methods import individual
from packnet_tf.apps.research.methods.job import Job, accuracy
from packnet_tf.apps.research.methods.plain import new_head, train_everything, with_heads
from packnet_tf.apps.research.runs import entries


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The small trunk as if it had learnt something: its gains are no longer 1."""
    folder = write_images(tmp_path_factory.mktemp("trained"))
    trunk = keras.saving.load_model(folder / "small.keras")
    for layer in trunk._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(layer.gamma * 0.9)
    trunk.save(folder / "small.keras")
    return folder


@pytest.fixture
def learn(trained, tmp_path):
    """Trains a network of its own on the first task, at a rate; returns accuracies."""

    def learn(rate):
        settings = {"epochs": 2, "prune_epoch": 1, "batch_size": 8, "learning_rate": rate}
        path = write_file(trained, methods={"individual": None}, settings=settings)
        job = Job(entries(read_comparison(path))[0].runs[0], tmp_path)
        trunk, [task, *_] = job.trunk(), job.tasks
        linear = job.head(task, trunk.predict_on_batch, True)
        floor = accuracy(with_heads(job.trunk(), [linear]), task, "validation")
        heads = [new_head(job, task, trunk)]
        assert individual.train_own(job, task, trunk, heads) > 0
        learn.linear_heads = job.linear_heads
        moved = trunk.get_weights()[0] != job.trunk().get_weights()[0]
        return floor, accuracy(with_heads(trunk, heads), task, "validation"), moved.any()

    return learn


@pytest.mark.parametrize("way", ["task", *slow("trunk")])
def test_either_kind_of_statistics_trains_all_kernels(learn, way, monkeypatch):
    monkeypatch.setattr(individual, "_chosen", lambda *_: way)
    floor, reached, moved = learn(0.01)
    assert reached >= floor
    assert moved


def test_a_network_that_diverges_is_the_linear_head_on_the_trunk_as_it_came(learn, monkeypatch):
    monkeypatch.setattr(individual, "_chosen", lambda *_: "task")
    floor, reached, moved = learn(1e38)  # no float32 bears it: NaN on any machine
    assert reached == floor
    assert not moved
    [why] = learn.linear_heads.values()
    assert why in (DIVERGED, BETTER)  # where all features are 0 by then, the loss is a number


def test_why_the_linear_head_is_in_place_of_a_network_is_noted(learn, monkeypatch):
    def diverge(*_):
        raise FloatingPointError

    monkeypatch.setattr(individual, "_chosen", lambda *_: "task")
    monkeypatch.setattr(individual, "fit", diverge)
    floor, reached, _ = learn(0.01)
    assert reached == floor
    assert list(learn.linear_heads.values()) == [DIVERGED]


def test_a_baseline_that_diverges_ends_at_once_with_the_remedy(trained, tmp_path):
    settings = {"epochs": 9, "prune_epoch": 6, "batch_size": 8, "learning_rate": 1e38}
    path = write_file(trained, methods={"fine_tuning": None}, settings=settings)
    job = Job(entries(read_comparison(path))[0].runs[0], tmp_path)
    trunk = job.trunk()
    heads = [new_head(job, job.tasks[0], trunk)]
    with pytest.raises(FloatingPointError, match=r"loss of epoch \d is NaN or infinite") as error:
        train_everything(job, job.tasks[0], trunk, heads)
    assert "Give the method a lower one in the file, learning_rate: " in str(error.value)


def test_the_choice_is_kept_for_a_run_that_goes_on(learn, tmp_path, monkeypatch):
    tried = iter([0.5, 0.75])
    monkeypatch.setattr(individual, "_try", lambda *_: next(tried))
    learn(0.01)
    assert (tmp_path / "statistics_0.json").read_text() == '"task"'
    learn(0.01)  # tries nothing anew: there is nothing left to try
