"""`packnet bench train`: a training step of a packed network beside that of plain Keras."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator

import numpy as np

from packnet_tf.apps import cli
from packnet_tf.apps.benches.processes import in_process
from packnet_tf.apps.benches.rows import Row, timed
from packnet_tf.apps.benches.trunks import CLASSES, build_trunk, packed
from packnet_tf.apps.benches.turns import Times, in_turns, seconds_of

# Network, pixels, batch size, and what a packed step may cost.
NETWORKS = (
    ("TinyDarknet", 96, 32, 1.02),
    ("MobileNetV2", 96, 32, 1.02),
    ("ResNet50", 64, 32, 1.02),
    ("VGG16", 64, 8, 1.10),
    ("VGG16", 64, 32, 1.10),
)
MODES = ("graph", "XLA", "mixed_bfloat16")
OPTIMIZERS = ("SGD", "Adam")
TURN = 1.0  # seconds of steps before the other side has its turn, about


@dataclasses.dataclass(frozen=True)
class Case:
    """One network trained in one way.

    Attributes:
        network, pixels, batch: see `build_trunk`.
        mode: "graph", "XLA" or "mixed_bfloat16" (in graph mode).
        optimizer: "SGD" (with momentum 0.9) or "Adam".
        goal: what the ratio of the steps shall not exceed.
    """

    network: str
    pixels: int
    batch: int
    mode: str
    optimizer: str
    goal: float

    @property
    def title(self) -> str:
        return f"{self.network} {self.pixels} px x {self.batch}, {self.mode}, {self.optimizer}"


def cases() -> list[Case]:
    """All networks in all modes with all optimizers."""
    return [
        Case(network, pixels, batch, mode, optimizer, goal)
        for network, pixels, batch, goal in NETWORKS
        for mode in MODES
        for optimizer in OPTIMIZERS
    ]


def bench_train(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Measures the cases whose title is wanted, each in a process of its own."""
    for case in filter(lambda case: only(case.title), cases()):
        say(case.title)
        options = json.dumps([dataclasses.asdict(case), turns])
        for row in in_process("packnet_tf.apps.benches.train", options, say=say):
            yield Row(**row)


def measure(case: Case, turns: int) -> list[Row]:
    """The rows of a case: tasks 1 and 3 against plain Keras, and `PackTrainer` against `fit`."""
    import keras

    keras.utils.set_random_seed(1)
    if case.mode == "mixed_bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    models = {"plain": plain_model(case), "task 1": packed_model(case, 0)}
    models["task 3"] = packed_model(case, 2)
    for model in models.values():
        compile_model(model, case)
    batch = random_batch(case)
    fit_steps(models["plain"], batch, 1)
    fit_steps(models["plain"], batch, 1)
    steps = max(2, round(TURN / seconds_of(lambda: fit_steps(models["plain"], batch, 1))))
    sides = {
        side: lambda model=model: fit_steps(model, batch, steps) for side, model in models.items()
    }
    times = per_step(in_turns(sides, turns), steps)
    rows = [
        timed(case.title, times, "task 1", "plain", case.goal),
        timed(case.title, times, "task 3", "plain", case.goal),
        timed(case.title, times, "task 3", "task 1", 1.0),
    ]
    del models["plain"], models["task 3"], sides
    times = per_step(trainer_in_turns(case, models["task 1"], batch, steps, turns), steps)
    return [*rows, timed(case.title, times, "PackTrainer", "fit", 1.0)]


def plain_model(case: Case):
    """The network with a head, as anybody would write it."""
    import keras

    trunk = build_trunk(case.network, case.pixels)
    return keras.Model(trunk.inputs, keras.layers.Dense(CLASSES)(trunk.output))


def packed_model(case: Case, before: int):
    """The model of the task that comes after so many tasks in a pack."""
    import keras

    net = packed(build_trunk(case.network, case.pixels), before + 1, before)
    return net.add_task("next", keras.layers.Dense(CLASSES))


def compile_model(model, case: Case) -> None:
    """Compiles it as the case says."""
    model.compile(
        optimizer(case)(1e-4), loss(), metrics=["accuracy"], jit_compile=case.mode == "XLA"
    )


def optimizer(case: Case) -> Callable:
    """From a learning rate to the optimizer of a case."""
    import keras

    if case.optimizer == "Adam":
        return keras.optimizers.Adam
    return lambda rate: keras.optimizers.SGD(rate, momentum=0.9)


def loss():
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def random_batch(case: Case):
    """Images and labels, float32 and int32."""
    rng = np.random.default_rng(0)
    shape = (case.batch, case.pixels, case.pixels, 3)
    return rng.random(shape, np.float32), rng.integers(0, CLASSES, case.batch, np.int32)


def repeated(batch, steps: int):
    """A dataset of a batch, again and again."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch).repeat(steps).prefetch(2)


def fit_steps(model, batch, steps: int) -> None:
    """An epoch of so many steps."""
    model.fit(repeated(batch, steps), verbose=0, shuffle=False)


def trainer_in_turns(case: Case, fitted, batch, steps: int, turns: int) -> Times:
    """An epoch of `PackTrainer`, one of `fit`, and so on."""
    import time

    import keras

    import packnet_tf

    times = {"PackTrainer": [], "fit": []}
    began = None

    def data_of(epoch: int):
        """Asked for at the beginning of an epoch, which is when the last one has ended."""
        nonlocal began
        if epoch > 2:  # the first traces, the second finds out how many steps are one call
            times["PackTrainer"].append(time.perf_counter() - began)
            times["fit"].append(seconds_of(lambda: fit_steps(fitted, batch, steps)))
        data = repeated(batch, steps)
        began = time.perf_counter()
        return data

    trainer = packnet_tf.PackTrainer(
        packnet_tf.PackNet(build_trunk(case.network, case.pixels)),
        optimizer(case),
        loss=loss(),
        epochs=turns + 4,
        retrain_epochs=0,
        learning_rate=1e-4,
        prune=0.0,
        jit_compile=case.mode == "XLA",
        tensorboard=False,
        verbose=False,
    )
    trainer.fit([packnet_tf.Task("task", keras.layers.Dense(CLASSES), data_of)])
    return times


def per_step(times: Times, steps: int) -> Times:
    """Seconds of a step, from those of turns."""
    return {side: [seconds / steps for seconds in values] for side, values in times.items()}


if __name__ == "__main__":
    cli.start_keras()
    case, turns = json.loads(sys.argv[1])
    print(json.dumps([dataclasses.asdict(row) for row in measure(Case(**case), turns)]))
