"""Pictures show every layer and every task, and nothing is cut off."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

import packnet_tf
from helpers.pack_helpers import compiled, data, mlp_trunk, packed
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.plotting import task_colours


def capacity(tasks, names, owned=10):
    entry = {"total": 1000, "free": 1000 - owned * len(tasks), "claimed": 0}
    return Capacity(
        {name: {**entry, "owned": dict.fromkeys(tasks, owned)} for name in names}, tuple(tasks)
    )


def drawn(figure):
    """The box of the drawn figure, and those of its legend and of the labels of its layers."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes, renderer = figure.axes[0], canvas.get_renderer()
    labels = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    return figure.bbox, figure.legends[0].get_window_extent(renderer), labels


def inside(inner, outer):
    return (
        inner.x0 >= outer.x0
        and inner.x1 <= outer.x1
        and inner.y0 >= outer.y0
        and inner.y1 <= outer.y1
    )


@pytest.mark.parametrize("count", [0, 8, 10, 20, 60])
def test_tasks_have_different_colours(count):
    colours = task_colours(count)
    assert len(set(colours)) == len(colours) == count
    assert task_colours(count + 1)[:count] == colours
    rgb = [np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in colours[:20]]
    grey = np.array([0xDD] * 3)
    assert all(np.abs(a - b).max() >= 40 for a, b in itertools.combinations([*rgb, grey], 2))


def test_ten_tasks_are_drawn_in_ten_colours():
    tasks = [f"task{number}" for number in range(10)]
    figure = packnet_tf.plot_capacity(capacity(tasks, ["conv"]))
    bars = [to_hex(patch.get_facecolor()) for patch in figure.axes[0].patches]
    assert len(set(bars)) == len(tasks) + 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*tasks, "free"]


def test_a_pack_is_drawn_as_its_capacity_is():
    net = packed(mlp_trunk(), one=0.5)
    first, second = (packnet_tf.plot_capacity(given) for given in (net, net.capacity()))
    widths = [[patch.get_width() for patch in f.axes[0].patches] for f in (first, second)]
    assert widths[0] == widths[1]
    with pytest.raises(ValueError, match=r"plot_capacity\(net\)"):
        packnet_tf.plot_capacity(net.capacity().to_dict())


@pytest.mark.parametrize(
    ("tasks", "names"),
    [
        (["birds"], ["conv"]),
        ([f"a_task_of_a_long_name_{number}" for number in range(12)], ["conv"]),
        ([f"task_{number}_of_a_name_too_long_for_a_column" for number in range(16)], ["conv"]),
        (["b" * 100, "_$x$_"], ["conv", "$a_b$"]),
        (["birds"], [f"block_{number}/" + "inner/" * 12 + "conv" for number in range(60)]),
    ],
)
def test_labels_and_legends_are_never_cut_off(tasks, names):
    figure = packnet_tf.plot_capacity(capacity(tasks, names))
    whole, legend, labels = drawn(figure)
    assert inside(legend, whole)
    assert legend.y0 >= figure.axes[0].get_window_extent().y1
    assert all(inside(label, whole) for label in labels)
    assert len(figure.legends[0].get_texts()) == len(tasks) + 1


def test_the_names_of_sixty_layers_do_not_overlap():
    figure = packnet_tf.plot_capacity(capacity(["birds"], [f"conv{n}" for n in range(60)]))
    _, _, labels = drawn(figure)
    assert len(labels) == 61
    assert all(lower.y1 <= upper.y0 for upper, lower in itertools.pairwise(labels))
    assert figure.get_size_inches()[1] < 15


def epochs(*phases):
    return [
        {"epoch": n, "phase": phase, "loss": 1 / (n + 1), "accuracy": 0.1 * n, "val_accuracy": 0.5}
        for n, phase in enumerate(phases)
    ]


def entry(**more):
    return {"epochs": epochs("training", "training", "retraining"), "test": {}, **more}


def lines(figure):
    """The lines of a figure by what its legend calls their colour and style."""
    found = {}
    named = zip(figure.legends[0].get_lines(), figure.legends[0].get_texts(), strict=True)
    styles = {(h.get_color(), h.get_linestyle()): t.get_text() for h, t in named}
    for axes in figure.axes:
        for line in axes.lines:
            name = styles[line.get_color(), line.get_linestyle()]
            found.setdefault((name, axes.get_ylabel()), []).append(line.get_xydata().tolist())
    return found


def test_every_task_has_a_panel():
    history = {"birds": entry(), "cars": entry(test={"accuracy": 0.25})}
    history["cars"]["reference"] = {"linear_head": 0.75}
    figure = packnet_tf.plot_history(history)
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["birds", "cars"]
    found = lines(figure)
    assert found["training", "accuracy"] == [[[1, 0], [2, 0.1], [3, 0.2]]] * 2
    assert found["validation", "accuracy"] == [[[1, 0.5], [2, 0.5], [3, 0.5]]] * 2
    assert ("validation", "loss") not in found
    assert found["prune", "loss"] == [[[2.5, 0], [2.5, 1]]] * 2
    assert found["test", "accuracy"] == [[[0, 0.25], [1, 0.25]]]
    assert found["linear head", "accuracy"] == [[[0, 0.75], [1, 0.75]]]
    assert lines(packnet_tf.plot_history(history["birds"]))["training", "loss"] == [
        [[1, 1], [2, 0.5], [3, 1 / 3]]
    ]


def test_long_names_of_tasks_do_not_overlap():
    figure = packnet_tf.plot_history({f"{letter * 90}_$x$": entry() for letter in "abcd"})
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    boxes = [title.get_window_extent(canvas.get_renderer()) for title in titles]
    assert len(boxes) == 4
    assert all(inside(box, figure.bbox) for box in boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_names_that_are_no_text_are_drawn_with_escapes(tmp_path):
    figure = packnet_tf.plot_history({"d\udce4rk": entry()}, tmp_path / "history.svg")
    assert figure.axes[0].get_title() == r"d\udce4rk"
    assert (tmp_path / "history.svg").stat().st_size > 1000


def test_what_fit_returns_is_drawn_with_its_prune(tmp_path):
    trunk = mlp_trunk()
    x, y = data(trunk)
    model = compiled(packnet_tf.PackNet(trunk).add_task("birds", layers.Dense(3)))
    history = model.fit(
        x, y, epochs=4, verbose=0, validation_data=(x, y),
        callbacks=[packnet_tf.PackNetCallback(0.5, prune_epoch=3)],
    )  # fmt: skip
    figure = packnet_tf.plot_history(history, tmp_path / "new" / "history.png")
    assert (tmp_path / "new" / "history.png").read_bytes()[:4] == b"\x89PNG"
    assert lines(figure) == lines(packnet_tf.plot_history(history.history))
    found = lines(figure)
    assert [point[1] for point in found["training", "loss"][0]] == history.history["loss"]
    assert found["prune", "accuracy"] == [[[3.5, 0], [3.5, 1]]]


def test_what_the_trainer_returns_is_drawn():
    net = packnet_tf.PackNet(mlp_trunk())
    x, y = data(net.state.trunk)
    trainer = packnet_tf.PackTrainer(net, epochs=2, retrain_epochs=1, verbose=False)
    reference = {"linear_head": 0.5}
    task = packnet_tf.Task("birds", layers.Dense(3), (x, y), test=(x, y), reference=reference)
    found = lines(packnet_tf.plot_history(trainer.fit(task)))
    assert found["prune", "accuracy"][0][0][0] == 2.5
    assert found["test", "accuracy"][0][0][1] == trainer.history["birds"]["test"]["accuracy"]
    assert found["linear head", "accuracy"][0][0][1] == 0.5


def test_a_history_without_epochs_is_drawn_empty():
    net = packnet_tf.PackNet(mlp_trunk())
    trainer = packnet_tf.PackTrainer(net, epochs=0, retrain_epochs=0, verbose=False)
    history = trainer.fit(packnet_tf.Task("birds", layers.Dense(3), data(net.state.trunk)))
    figure = packnet_tf.plot_history(history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss"]
    assert figure.legends == []


@pytest.mark.parametrize("given", [{}, [], {"birds": 0.5}, keras.callbacks.Callback()])
def test_what_is_no_history_is_refused(given):
    with pytest.raises(ValueError, match=r"plot_history\(trainer\.fit\(tasks\)\)"):
        packnet_tf.plot_history(given)


def test_notebooks_show_figures():
    figure = packnet_tf.plot_capacity(capacity(["birds"], ["conv"]))
    assert figure._repr_png_()[:4] == b"\x89PNG"
