"""`packnet bench scale`: what grows with the number of tasks on one trunk."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator

from packnet_tf.apps.benches import train
from packnet_tf.apps.benches.rows import Row, counted, timed
from packnet_tf.apps.benches.trunks import CLASSES, build_trunk, packed
from packnet_tf.apps.benches.turns import in_turns

TASKS = (1, 10, 50, 100)
GOAL = 1.05
NETWORK, PIXELS, BATCH = "TinyDarknet", 96, 32


def bench_scale(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Packs so many tasks, and measures what is done with one of them beside a pack of one task."""
    import keras

    from packnet_tf.export import export_onnx

    nets = {}
    for tasks in TASKS:
        say(f"packing {tasks} tasks")
        nets[name(tasks)] = packed(build_trunk(NETWORK, PIXELS), tasks + 1, tasks)
    case = train.Case(NETWORK, PIXELS, BATCH, "graph", "SGD", GOAL)
    batch = train.random_batch(case)
    with tempfile.TemporaryDirectory() as folder:
        files = {tasks: pathlib.Path(folder) / f"{len(net.tasks)}" for tasks, net in nets.items()}
        whats = {
            "task_model (a view)": lambda net, _: net.task_model(net.tasks[-1]),
            "save": lambda net, path: net.save(path.with_suffix(".keras")),
            "load": lambda _, path: load(path.with_suffix(".keras")),
            "export_onnx": lambda net, path: export_onnx(
                net, net.tasks[-1], path.with_suffix(".onnx")
            ),
        }
        for what, call in whats.items():
            if only(what):
                say(what)
                yield from _rows(what, {t: _bound(call, nets[t], files[t]) for t in nets}, turns)
        if only("bytes of pack.keras"):
            yield from sizes(nets, files)
    if only("switch between two views"):
        say("switch between two views")
        calls = {tasks: switching(net, batch[0][:1]) for tasks, net in nets.items()}
        yield from _rows("switch between two views", calls, turns)
    if only("training step"):
        say("training step")
        models = {t: net.add_task("next", keras.layers.Dense(CLASSES)) for t, net in nets.items()}
        for model in models.values():
            train.compile_model(model, case)
        calls = {
            t: lambda model=model: train.fit_steps(model, batch, 4) for t, model in models.items()
        }
        yield from _rows("training step, 4 steps", calls, 2 * turns)
        say("traces")
        yield traces(nets[name(TASKS[-1])], models[name(TASKS[-1])], batch, case)


def name(tasks: int) -> str:
    return "1 task" if tasks == 1 else f"{tasks} tasks"


def load(path):
    import packnet_tf

    return packnet_tf.load(path)


def _bound(call, net, path):
    return lambda: call(net, path)


def _rows(what: str, calls, turns: int) -> Iterator[Row]:
    times = in_turns(calls, turns)
    first = name(TASKS[0])
    for tasks in list(times)[1:]:
        yield timed(what, times, tasks, first, GOAL)


def sizes(nets, files) -> Iterator[Row]:
    """The file beside what it must hold: float32 weights, owners in bits, what tasks have alone."""
    for tasks, net in nets.items():
        path = files[tasks].with_suffix(".keras")
        net.save(path)
        use = net.storage()
        weights = use["packed"] / 4
        owner_bits = len(net.tasks).bit_length()  # of the numbers from 0 to that of the last
        own = sum(use["tasks"].values())
        needed = weights * (4 + owner_bits / 8) + use["trunk"] + own
        note = f"{owner_bits} bits an owner, {own / len(net.tasks) / 1000:.1f} kB a task"
        yield counted(
            "bytes of pack.keras", tasks, path.stat().st_size, "bytes", "what it must hold",
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


def traces(net, model, batch, case: train.Case) -> Row:
    """How often Python runs a task's step, its prune and retraining included, and a plain one's."""
    import packnet_tf

    callback = packnet_tf.PackNetCallback(prune_ratio=0.5, prune_epoch=2)
    ours = runs_in_python(model, batch, [callback])
    plain = runs_in_python(train.plain_model(case), batch, [])
    title = "traces of a step, its prune and retraining included"
    return counted(title, f"task {len(net.tasks)}", ours, "", "plain Keras", plain, 1.0)


def runs_in_python(model, batch, callbacks: list) -> int:
    """How often the loss is called in four epochs: whenever Keras builds or traces the step."""
    import keras

    count = 0

    def loss(labels, logits):
        nonlocal count
        count += 1
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return keras.ops.mean(losses)

    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), loss)
    data = train.repeated(batch, 2)
    model.fit(data, epochs=4, verbose=0, shuffle=False, callbacks=callbacks)
    return count
