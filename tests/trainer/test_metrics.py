"""Losses and metrics of a trainer: those that were given, new ones for every task."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import data, mlp_trunk
from helpers.short_runs import quick
from packnet_tf import Task


class Weighted(keras.losses.Loss):
    """A loss with a parameter that its configuration does not tell."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )


class Counted(keras.metrics.Metric):
    """A metric with a parameter."""

    def __init__(self, by=1.0, name="counted"):
        super().__init__(name=name)
        self.by, self.total = by, self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.by)

    def result(self):
        return self.total


class Told(Counted):
    def get_config(self):
        return {**super().get_config(), "by": self.by}


def test_losses_and_metrics_are_those_that_were_given():
    trunk = mlp_trunk()
    x, y = data(trunk)
    losses = []
    for factor in (1.0, 3.0):
        net = packnet_tf.PackNet(trunk)
        trainer = quick(
            net, loss=Weighted(factor), epochs=1, learning_rate=0.0, metrics=[Told(by=2.0)]
        )
        history = trainer.fit([Task(name, layers.Dense(3), (x, y)) for name in "ab"])
        losses.append(history["a"]["epochs"][0]["loss"])
        assert [history[name]["epochs"][0]["counted"] for name in "ab"] == [2.0, 2.0]
    assert losses[1] == pytest.approx(3 * losses[0])


def test_metrics_may_be_named_by_output():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    head = layers.Dense(3, name="out")
    quick(net, epochs=1, metrics={"out": ["accuracy"]}).fit([Task("a", head, (x, y))])
    assert net.tasks == ("a",)


def test_a_metric_that_cannot_be_made_anew_is_refused():
    with pytest.raises(ValueError) as error:
        quick(packnet_tf.PackNet(mlp_trunk()), metrics=["accuracy", Counted(by=2.0)])
    assert str(error.value) == (
        "Every task needs a metric 'counted' of its own, and the get_config() of Counted does not "
        "return its by. Return every argument of __init__ there."
    )


def test_a_metric_with_a_result_per_class_has_a_number_for_each(tmp_path):
    x, y = data(mlp_trunk())
    one_hot = np.eye(3, dtype="float32")[y]
    task = Task("a", layers.Dense(3), (x, one_hot), (x, one_hot))
    trainer = quick(
        packnet_tf.PackNet(mlp_trunk()),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.F1Score()],
        directory=tmp_path,
    )
    entry = trainer.fit(task)["a"]
    names = [f"f1_score_{place}" for place in range(3)]
    assert {*names, "accuracy", "loss"} == set(entry["retrained"])
    assert all(f"val_{name}" in entry["epochs"][0] for name in names)


def test_a_reference_may_be_a_number_of_numpy(tmp_path):
    x, y = data(mlp_trunk())
    task = Task("a", layers.Dense(3), (x, y), reference={"linear_head": np.float32(0.5)})
    net = packnet_tf.PackNet(mlp_trunk())
    assert quick(net, directory=tmp_path).fit(task)["a"]["reference"] == {"linear_head": 0.5}
    assert net.results("a")["linear_head"] == 0.5


@pytest.mark.parametrize("metric", ["acc", keras.metrics.SparseCategoricalAccuracy()])
def test_accuracy_by_any_of_its_names_is_a_result_of_the_task(metric):
    trunk = mlp_trunk()
    x, y = data(trunk)
    net = packnet_tf.PackNet(trunk)
    reference = {"linear_head": 2.0, "chance": 0.5}
    task = Task("a", layers.Dense(3), (x, y), (x, y), (x, y), reference=reference)
    history = quick(net, metrics=[metric]).fit(task)
    found = net.results("a")
    assert set(found) == {
        "linear_head",
        "chance",
        "before_prune",
        "after_prune",
        "retrained",
        "test",
    }
    name = metric if isinstance(metric, str) else metric.name
    assert found["test"] == history["a"]["test"][name] == history["a"]["test"]["accuracy"]
