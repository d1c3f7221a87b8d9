"""`packnet bench scale`: what grows with the number of tasks on one trunk."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator

import keras

import packnet_tf
from benchmarks import cases
from benchmarks.rows import Row, counted, timed
from benchmarks.trunks import CLASSES, build_trunk, packed
from benchmarks.turns import in_turns
from packnet_tf import PackNet

TASKS = (1, 10, 50, 100)
GOAL = 1.05
NETWORK, PIXELS = "TinyDarknet", 96
CASE = cases.Case(NETWORK, PIXELS, 32, "graph", "SGD", GOAL)


Nets = dict[str, PackNet]  # by how many tasks they have, in words


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Packs so many tasks, and measures what is done with one of them beside a pack of one task."""
    parts = [part for part in PARTS if only(part)]
    nets: Nets = {}
    for tasks in TASKS if parts else ():
        say(f"packing {tasks} tasks")
        title = "1 task" if tasks == 1 else f"{tasks} tasks"
        nets[title] = packed(build_trunk(NETWORK, PIXELS), tasks + 1, tasks)
    for part in parts:
        say(part)
        with tempfile.TemporaryDirectory() as folder:
            files = {tasks: pathlib.Path(folder) / f"{tasks}.keras" for tasks in nets}
            for tasks, net in nets.items() if part in WITH_FILES else ():
                net.save(files[tasks])
            yield from PARTS[part](part, nets, files, turns)


def against_one(what: str, calls: dict[str, Callable], turns: int) -> Iterator[Row]:
    """Rows of calls by the number of tasks, each against the first."""
    times = in_turns(calls, turns)
    first, *others = times
    for tasks in others:
        yield timed(what, times, tasks, first, GOAL)


def views(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """A view of the last task."""
    calls = {t: lambda net=net: net.task_model(net.tasks[-1]) for t, net in nets.items()}
    return against_one(part, calls, turns)


def saves(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """The whole pack saved."""
    return against_one(part, {t: lambda t=t: nets[t].save(files[t]) for t in nets}, turns)


def loads(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """And loaded."""
    return against_one(part, {t: lambda t=t: packnet_tf.load(files[t]) for t in nets}, turns)


def exports(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """The last task exported."""
    from packnet_tf.export import export_onnx

    calls = {
        t: lambda t=t: export_onnx(nets[t], nets[t].tasks[-1], files[t].with_suffix(".onnx"))
        for t in nets
    }
    return against_one(part, calls, turns)


def switches(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """The first and the last task's view called in turn."""
    image = cases.random_batch(CASE)[0][:1]
    return against_one(part, {t: switching(net, image) for t, net in nets.items()}, turns)


def steps(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """Training steps of one more task."""
    batch, calls = cases.random_batch(CASE), {}
    for tasks, net in nets.items():
        model = net.add_task("next", keras.layers.Dense(CLASSES))
        cases.compile_model(model, CASE)
        calls[tasks] = lambda model=model: cases.fit_steps(model, batch, 4)
    yield from against_one(part, calls, 2 * turns)
    for net in nets.values():
        net.discard()


def sizes(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """The file beside what it must hold: float32 weights, owners in bits, what tasks have alone."""
    for tasks, net in nets.items():
        use = net.storage()
        weights = use["packed"] / 4
        owner_bits = len(net.tasks).bit_length()  # of the numbers from 0 to that of the last
        own = sum(use["tasks"].values())
        needed = weights * (4 + owner_bits / 8) + use["trunk"] + own
        note = f"{owner_bits} bits an owner, {own / len(net.tasks) / 1000:.1f} kB a task"
        yield counted(
            part, tasks, files[tasks].stat().st_size, "bytes", "what it must hold",
            needed, GOAL, note,
        )  # fmt: skip


def switching(net, image) -> Callable[[], None]:
    """Calls the first and the last task's view in turn, ten times."""
    first, last = (net.task_model(task) for task in (net.tasks[0], net.tasks[-1]))

    def switch():
        for _ in range(10):
            first(image, training=False)
            last(image, training=False)

    return switch


def traces(part: str, nets: Nets, files, turns: int) -> Iterator[Row]:
    """How often Python runs a task's step, its prune and retraining included, and a plain one's."""
    net, batch = list(nets.values())[-1], cases.random_batch(CASE)
    model = net.add_task("next", keras.layers.Dense(CLASSES))
    callback = packnet_tf.PackNetCallback(prune_ratio=0.5, prune_epoch=2)
    ours = runs_in_python(model, batch, [callback])
    plain = runs_in_python(cases.plain_model(CASE), batch, [])
    yield counted(part, f"task {len(net.tasks)}", ours, "", "plain Keras", plain, 1.0)


def runs_in_python(model, batch, callbacks: list) -> int:
    """How often the loss is called in four epochs: whenever Keras builds or traces the step."""
    count = 0

    def loss(labels, logits):
        nonlocal count
        count += 1
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return keras.ops.mean(losses)

    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), loss)
    data = cases.repeated(batch, 2)
    model.fit(data, epochs=4, verbose=0, shuffle=False, callbacks=callbacks)
    return count


# What is measured, in this order: the last part packs one more task.
PARTS = {
    "task_model (a view)": views,
    "save": saves,
    "load": loads,
    "bytes of pack.keras": sizes,
    "export_onnx": exports,
    "switch between two views": switches,
    "training step, 4 steps": steps,
    "traces of a step, its prune and retraining included": traces,
}
WITH_FILES = ("load", "bytes of pack.keras")
