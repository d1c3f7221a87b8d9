"""Costs that could grow with the number of tasks: many tasks on Tiny Darknet against one."""

import pathlib
import tempfile
from functools import partial

from benchmarks.command import in_process, run
from benchmarks.networks import CLASSES, Case, build_trunk, fit_steps, packed, repeated
from benchmarks.rows import Row, counted, in_turns, timed

CASES = {f"{tasks} tasks": tasks for tasks in (10, 50, 100)}
GOAL = 1.05
CASE = Case("TinyDarknet", 96, 32)


def measure(tasks: int, turns: int) -> list[Row]:
    """Measures a pack of `tasks` tasks, on its last one, against a pack of one task."""
    import packnet_tf
    from packnet_tf.export import export_onnx

    many, one = (packed(build_trunk(CASE.network, CASE.pixels), n + 1, n) for n in (tasks, 1))
    image, batch = CASE.random_batch()[0][:1], CASE.random_batch()
    with tempfile.TemporaryDirectory() as folder:
        file = {net: pathlib.Path(folder) / f"{len(net.tasks)}.keras" for net in (many, one)}
        # Measured in this order, because loading needs the saved file.
        parts = {
            "task_model (a view)": lambda net: partial(net.task_model, net.tasks[-1]),
            "save": lambda net: partial(net.save, file[net]),
            "load": lambda net: partial(packnet_tf.load, file[net]),
            "export_onnx": lambda net: partial(
                export_onnx, net, net.tasks[-1], file[net].with_suffix(".onnx")
            ),
            "switch between two views": lambda net: switching(net, image),
            "training step, 4 steps": lambda net: stepping(net, batch),
        }
        rows = []
        for part, call in parts.items():
            times = in_turns({part: call(many), "1 task": call(one)}, turns)
            rows.append(timed(times, part, "1 task", GOAL))
        size = file[many].stat().st_size
    many.discard()
    return [*rows, bytes_row(many, size), traces_row(many, batch)]


def switching(net, image):
    """Returns a function that calls the first and the last task's view in turn, ten times."""
    first, last = (net.task_model(task) for task in (net.tasks[0], net.tasks[-1]))

    def switch():
        for _ in range(10):
            first(image, training=False)
            last(image, training=False)

    return switch


def stepping(net, batch):
    """Returns a function that trains one more task for some steps."""
    import keras

    model = CASE.compile(net.add_task("next", keras.layers.Dense(CLASSES)))
    return partial(fit_steps, model, batch, 4)


def bytes_row(net, size: int) -> Row:
    """Compares the file with what it must hold: weights, bit-packed owners, per-task values."""
    use = net.storage()
    owner_bits = len(net.tasks).bit_length()  # owners are 0 to the number of tasks
    own = sum(use["tasks"].values())
    needed = use["packed"] / 4 * (4 + owner_bits / 8) + use["trunk"] + own
    note = f"{owner_bits} bits an owner, {own / len(net.tasks) / 1000:.1f} kB a task"
    return counted("pack.keras", size, "bytes", "what it must hold", needed, GOAL, note)


def traces_row(net, batch) -> Row:
    """Compares how often Python runs a task's step, prune included, with a plain model's."""
    import keras

    import packnet_tf

    model = net.add_task("next", keras.layers.Dense(CLASSES))
    callback = packnet_tf.PackNetCallback(prune_ratio=0.5, prune_epoch=2)
    ours, plain = runs_in_python(model, batch, [callback]), runs_in_python(CASE.model(), batch, [])
    return counted("traces, with a prune", ours, "", "plain Keras", plain, 1.0)


def runs_in_python(model, batch, callbacks: list) -> int:
    """Counts the Python calls of the loss in four epochs: once per build or trace of the step."""
    import keras

    count = 0

    def loss(labels, logits):
        nonlocal count
        count += 1
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return keras.ops.mean(losses)

    model.compile(CASE.new_optimizer(1e-4), loss)
    model.fit(repeated(batch, 2), epochs=4, verbose=0, shuffle=False, callbacks=callbacks)
    return count


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=7)
