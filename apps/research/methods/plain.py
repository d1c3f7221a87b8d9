"""Methods that train plain Keras networks, one per task or one for a sequence of tasks."""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator

import keras

from packnet_tf.adoption.trained import is_trained
from packnet_tf.apps.packs import rates
from packnet_tf.apps.research.methods.job import Job, TaskData, accuracy, network_bytes, saved_bytes
from packnet_tf.apps.research.settings import Settings
from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.distribution import has_accelerator
from packnet_tf.backend.json_files import write_json
from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.backend.optimizers import reset_optimizer
from packnet_tf.normalization.following import moves_statistics
from packnet_tf.normalization.statistics import update_statistics
from packnet_tf.packing.policy import NORMS
from packnet_tf.training import checkpoint
from packnet_tf.training.heads import as_in_training

GUIDE_RATE = 1e-4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# A function that trains a network on a task and returns the seconds that took. Its arguments are
# the job, the task, the trunk, and the heads so far, of which the last is the task's own.
Learn = Callable[[Job, TaskData, keras.Model, list], float]


def learn_in_sequence(job: Job, learn: Learn) -> dict:
    """Trains one network with a head per task on a sequence of tasks; resumes if interrupted.

    Args:
        job: the run.
        learn: trains the network on one task; a task with a pretrained head is not trained.

    Returns:
        The result of the run, see `worker.py`.
    """
    trunk, heads, state = _load_progress(job)
    for known in job.tasks[len(heads) :]:
        task = known.with_own_images()
        job.seed(task.place)
        began = time.perf_counter()
        heads.append(new_head(job, task, trunk, bool(heads)))
        state["seconds"][task.name] = time.perf_counter() - began
        if task.settings.head != "pretrained":
            state["seconds"][task.name] += learn(job, task, trunk, heads)
        state["linear_heads"] |= job.linear_heads
        for split in ("validation", "test"):
            seen = zip(job.tasks, heads, strict=False)
            state[split].append([accuracy(with_heads(trunk, [head]), t, split) for t, head in seen])
        _save_progress(job, trunk, heads, state)
    one, every = network_bytes(trunk, heads)
    return {
        **state,
        "bytes": saved_bytes(with_heads(trunk, heads)),
        "task_bytes": sum(variable.value.numpy().nbytes for h in heads for variable in h.variables),
        "one_network_bytes": one,
        "network_per_task_bytes": every,
    }


def new_head(
    job: Job, task: TaskData, trunk: keras.Model, learnt: bool = False
) -> keras.layers.Layer:
    """Returns the head of a task, with a unique name.

    Its features are computed as in training. `learnt` tells whether the trunk has learnt a task.
    """
    by_inference = job.run.kind in ("classifier_only", "guide") or (
        job.run.kind == "lwf" and learnt and job.run.options["norms"] == "frozen"
    )
    moves = moves_statistics(trunk) and not by_inference
    features_of = as_in_training(trunk) if moves else trunk.predict_on_batch
    head = job.head(task, features_of, learnt or is_trained(trunk))
    head.name = f"head_{task.place}"
    return head


def train_everything(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> float:
    """Trains all weights of the trunk and the task's head; heads of earlier tasks are frozen."""
    return fit(with_heads(trunk, heads[-1:]), task, job.folder)


def train_head(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> float:
    """Trains the head on a frozen trunk, unless it is a converged head already."""
    if task.settings.head == "new" and is_trained(trunk):
        return 0.0
    with frozen(trunk):
        return fit(with_heads(trunk, heads[-1:]), task, job.folder)


def follow_guide(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> float:
    """Follows Keras's guide to transfer learning: trains the head, then all at a low rate.

    A third of the epochs trains a new head on the frozen trunk with Adam. The others train all
    weights at `GUIDE_RATE`. Normalisation stays in inference mode throughout.

    Source: https://keras.io/guides/transfer_learning/. Its rate of 1e-5 gives worse results here.
    """
    with_heads(trunk, heads[-1:])  # builds the head
    dense = heads[-1].layers[-1] if isinstance(heads[-1], keras.Sequential) else heads[-1]
    dense.set_weights([keras.initializers.GlorotUniform()(dense.kernel.shape), dense.bias * 0])
    first = max(1, task.settings.epochs // 3)
    began = time.perf_counter()
    for part, epochs, rate in (
        (keras.layers.Layer, first, 1e-3),
        (NORMS, task.settings.epochs - first, GUIDE_RATE),
    ):
        with frozen(trunk, part):
            model = with_heads(trunk, heads[-1:])
            model.compile(keras.optimizers.Adam(rate), LOSS, jit_compile=has_accelerator())
            model.fit(task.train, epochs=epochs, verbose=0, shuffle=False)
    print(f"{task.name}: trained by the guide", flush=True)
    return time.perf_counter() - began


@contextlib.contextmanager
def frozen(trunk: keras.Model, kinds=keras.layers.Layer) -> Iterator[None]:
    """Freezes the trunk's layers of these classes, and restores `trainable` on exit."""
    layers = [part for part in all_layers(trunk) if isinstance(part, kinds)]
    before = [(layer, layer.trainable) for layer in layers]
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer, trainable in before:
            layer.trainable = trainable


def with_heads(trunk: keras.Model, heads: list, model_class: type = keras.Model) -> keras.Model:
    """Returns the model from pixels to the outputs of heads, built from the given layers."""
    pixels = keras.Input(trunk.input_shape[1:])
    features = trunk(pixels)
    outputs = [head(features) for head in heads]
    return model_class(pixels, outputs if len(outputs) > 1 else outputs[0])


def fit(
    model: keras.Model, task: TaskData, folder, loss=LOSS, metrics=("accuracy",), callbacks=()
) -> float:
    """Trains a model on a task, in the same two phases as packing.

    An interrupted training resumes after the last finished epoch, with the same order of data.

    Args:
        model: model from pixels to logits.
        task: its data and settings.
        folder: folder for its progress; None saves none.
        loss, metrics: as for `compile`.
        callbacks: further callbacks, which come before those of the phases.

    Returns:
        Seconds of training, including those before an interruption.

    Raises:
        FloatingPointError: the loss is NaN or infinite.
    """
    settings = task.settings
    model.compile(
        rates.optimizer(plain_optimizer(settings))(settings.learning_rate),
        loss,
        metrics=list(metrics),
        jit_compile=has_accelerator(),
    )
    model.optimizer.build(model.trainable_variables)
    phases = TwoPhases(settings, task.name, folder and progress_of(task, folder))
    first = phases.resume(model)
    data = task.train
    # Every iterator over the data draws new random numbers. If the number of batches is known,
    # Keras makes two per epoch: one at its start and one at its end.
    for _ in range(first * (2 if data.cardinality() >= 0 else 1)):
        iter(data)
    model.fit(
        data, initial_epoch=first, epochs=settings.epochs, callbacks=[*callbacks, phases],
        verbose=0, shuffle=False,
    )  # fmt: skip
    began = time.perf_counter()
    update_statistics(model, data)
    return phases.seconds + time.perf_counter() - began


def plain_optimizer(settings: Settings) -> str:
    """Returns the name of the optimizer for methods that train whole networks."""
    return "sgd" if settings.optimizer == "auto" else settings.optimizer


def progress_of(task: TaskData, folder: pathlib.Path) -> pathlib.Path:
    """Returns the file with the progress of `fit` on a task; the caller of `fit` removes it."""
    return folder / f"training_{task.place}.npz"


class TwoPhases(keras.callbacks.Callback):
    """Sets the learning rate of every epoch, and resets the optimizer at `prune_epoch`.

    Args:
        settings: settings of the task.
        name: name of the task, for messages.
        progress: file to save the state to after every epoch, or None.
    """

    def __init__(self, settings: Settings, name: str, progress: pathlib.Path | None):
        super().__init__()
        self._settings, self._name, self._progress = settings, name, progress
        self.seconds = 0.0
        self._before, self._after = rates.of_phases(
            settings, decay=settings.decay, every=settings.decay_every
        )

    def resume(self, model: keras.Model) -> int:
        """Restores the saved state; returns the next epoch."""
        if self._progress is None or not self._progress.exists():
            return 0
        facts, values = checkpoint.load(self._progress)
        checkpoint.put_back(model, values)
        self.seconds = facts["seconds"]
        return facts["epochs"]

    def on_epoch_begin(self, epoch, logs=None):
        turn = self._settings.prune_epoch
        if epoch == turn:
            reset_optimizer(self.model.optimizer)
        rate = self._before(epoch) if epoch < turn else self._after(epoch - turn)
        self.model.optimizer.learning_rate = self._rate = rate
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self._began
        if logs and not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"Training of task '{self._name}' diverged: the loss of epoch {epoch + 1} is NaN "
                f"or infinite, at a learning rate of {self._rate:g}. Give the method a lower one "
                f"in the file, learning_rate: {self._rate / 3:.2g}, or later: {{learning_rate: "
                "...} for all tasks but the first."
            )
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        print(f"{self._name}, epoch {epoch + 1}/{self._settings.epochs}: {numbers}", flush=True)
        if self._progress is not None:
            facts = {"epochs": epoch + 1, "seconds": self.seconds}
            checkpoint.save(self._progress, facts, checkpoint.take(self.model))


def _load_progress(job: Job):
    """Returns trunk, heads and measurements after the finished tasks."""
    note = job.folder / "state.json"
    if not note.exists():
        return job.trunk(), [], {"validation": [], "test": [], "seconds": {}, "linear_heads": {}}
    state = json.loads(note.read_text(encoding="utf-8"))
    whole = keras.saving.load_model(job.folder / _file(len(state["test"])), compile=False)
    trunk, *heads = [
        layer for layer in whole.layers if not isinstance(layer, keras.layers.InputLayer)
    ]
    return trunk, heads, state


def _save_progress(job: Job, trunk: keras.Model, heads: list, state: dict) -> None:
    """Saves the network first, and then the state that refers to it."""
    path = job.folder / _file(len(heads))
    with replacing(path) as temporary:
        with_heads(trunk, heads).save(temporary)
    write_json(job.folder / "state.json", state)
    (job.folder / _file(len(heads) - 1)).unlink(missing_ok=True)


def _file(tasks: int) -> str:
    return f"after_{tasks}.keras"
