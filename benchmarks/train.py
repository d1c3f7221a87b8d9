"""`packnet bench train`: a training step of a packed network beside that of plain Keras."""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks import cases
from benchmarks.cases import Case, fit_steps, wanted
from benchmarks.processes import in_process
from benchmarks.rows import Row, timed
from benchmarks.trunks import CLASSES, build_trunk
from benchmarks.turns import Times, in_turns, seconds_of
from packnet_tf.apps import cli

STEPS = 8  # single steps of each model, in turns, for one repeat
TURN = 4.0  # seconds that an epoch of the trainer takes, about: its ends should not weigh much


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Measures the cases whose title is wanted, each in a process of its own."""
    for case in wanted(cases.all_cases(), lambda case: case.title, only, say):
        options = json.dumps([dataclasses.asdict(case), turns])
        for row in in_process("benchmarks.train", options, say=say):
            yield Row(**row)


def measure(case: Case, turns: int) -> list[Row]:
    """The rows of a case: tasks 1 and 3 against plain Keras, and `PackTrainer` against `fit`.

    Plain Keras against itself shows what is noise. `PackTrainer` needs Keras on TensorFlow.
    """
    import keras

    keras.utils.set_random_seed(1)
    if case.mode == "mixed_bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    models = {"plain": cases.plain_model(case), "task 1": cases.packed_model(case, 0)}
    models["task 3"] = cases.packed_model(case, 2)
    for model in models.values():
        cases.compile_model(model, case)
    batch = cases.random_batch(case)
    # One step a turn: the speed of a shared machine changes from one second to the next.
    sides = {
        side: lambda model=model: model.train_on_batch(*batch) for side, model in models.items()
    }
    sides["plain again"] = sides["plain"]
    times = in_turns(sides, STEPS * turns, warm_up=2)
    rows = [
        timed(case.title, times, "task 1", "plain", case.goal),
        timed(case.title, times, "task 3", "plain", case.goal),
        timed(case.title, times, "task 3", "task 1", 1.0),
        timed(case.title, times, "plain again", "plain"),
    ]
    if keras.backend.backend() != "tensorflow":
        return rows
    steps = max(2, round(TURN / statistics.median(times["plain"])))
    del models["plain"], models["task 3"], sides
    fit_steps(models["task 1"], batch, steps)
    times = per_step(trainer_in_turns(case, models["task 1"], batch, steps, turns), steps)
    return [*rows, timed(case.title, times, "PackTrainer", "fit", 1.0)]


def trainer_in_turns(case: Case, fitted, batch, steps: int, turns: int) -> Times:
    """An epoch of `PackTrainer`, one of `fit`, and so on."""
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
        data = cases.repeated(batch, steps)
        began = time.perf_counter()
        return data

    trainer = packnet_tf.PackTrainer(
        packnet_tf.PackNet(build_trunk(case.network, case.pixels)),
        cases.optimizer(case),
        loss=cases.loss(),
        epochs=turns + 4,
        retrain_epochs=0,
        learning_rate=1e-4,
        prune=0.0,
        jit_compile=cases.by_xla(case),
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
