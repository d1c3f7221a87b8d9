"""Time of a training step, packed and plain, and of an epoch of `PackTrainer` and of `fit`.

Tasks 1 and 3 of a pack, an overlay in place of task 3, and the same network in plain Keras take one
step each in turns. Plain Keras against itself shows the noise. On Keras's JAX backend
(KERAS_BACKEND=jax) only steps are measured.
"""

import statistics
import time
from functools import partial

from benchmarks.command import in_process, run
from benchmarks.networks import CLASSES, Case, build_trunk, fit_steps, loss, repeated
from benchmarks.rows import Row, Times, in_turns, seconds_of, timed

# Network, pixels, batch size, and goal for the ratio of a packed step to a plain one.
NETWORKS = (
    ("TinyDarknet", 96, 32, 1.02),
    ("MobileNetV2", 96, 32, 1.02),
    ("ResNet50", 64, 32, 1.02),
    ("VGG16", 64, 8, 1.10),
    ("VGG16", 64, 32, 1.10),
)
CASES = {
    case.title: case
    for *network, goal in NETWORKS
    for mode in ("graph", "XLA", "mixed_bfloat16")
    for optimizer in ("SGD", "Adam")
    for case in [Case(*network, mode, optimizer, goal)]
}
OVERLAY = 0.05  # share of the weights; steps before and after its prune are the same graph
OVERLAY_GOAL = 1.05  # ratio of its step to a plain one
STEPS = 8  # turns of one step per model, for one repeat
EPOCH = 4.0  # approximate seconds of an epoch, long enough that its start and end hardly count


def measure(case: Case, turns: int) -> list[Row]:
    """Measures a case; `PackTrainer` only if Keras runs on TensorFlow."""
    import keras

    keras.utils.set_random_seed(1)
    if case.mode == "mixed_bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    models = {
        "plain": case.model(),
        "task 1": case.model(0),
        "task 3": case.model(2),
        "overlay": case.model(2, OVERLAY),
    }
    batch = case.random_batch()
    # One step a turn: the speed of a shared machine changes from one second to the next.
    sides = {side: partial(model.train_on_batch, *batch) for side, model in models.items()}
    times = in_turns({**sides, "plain again": sides["plain"]}, STEPS * turns, warm_up=2)
    rows = [
        timed(times, "task 1", "plain", case.goal),
        timed(times, "task 3", "plain", case.goal),
        timed(times, "task 3", "task 1", 1.0),
        timed(times, "overlay", "plain", max(case.goal, OVERLAY_GOAL)),
        timed(times, "plain again", "plain"),
    ]
    if keras.backend.backend() != "tensorflow":
        return rows
    steps = max(2, round(EPOCH / statistics.median(times["plain"])))
    fitted = models.pop("task 1")
    del models, sides
    times = trainer_in_turns(case, fitted, batch, steps, turns)
    times = {side: [seconds / steps for seconds in of] for side, of in times.items()}
    return [*rows, timed(times, "PackTrainer", "fit", 1.0)]


def trainer_in_turns(case: Case, fitted, batch, steps: int, turns: int) -> Times:
    """Times epochs of `PackTrainer` and of `fit` in turns."""
    import keras

    import packnet_tf

    times = {"PackTrainer": [], "fit": []}
    began = None
    fit_steps(fitted, batch, steps)

    def data_of(epoch: int):
        """Called at the start of an epoch, so it also marks the end of the one before."""
        nonlocal began
        if epoch > 2:  # the first traces; the second chooses the steps per call
            times["PackTrainer"].append(time.perf_counter() - began)
            times["fit"].append(seconds_of(partial(fit_steps, fitted, batch, steps)))
        data = repeated(batch, steps)
        began = time.perf_counter()
        return data

    trainer = packnet_tf.PackTrainer(
        packnet_tf.PackNet(build_trunk(case.network, case.pixels)),
        case.new_optimizer,
        loss=loss(),
        epochs=turns + 4,
        retrain_epochs=0,
        learning_rate=1e-4,
        prune=0.0,
        jit_compile=case.by_xla,
        tensorboard=False,
        verbose=False,
    )
    trainer.fit([packnet_tf.Task("task", keras.layers.Dense(CLASSES), data_of)])
    return times


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=7)
