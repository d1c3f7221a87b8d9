"""Methods that train plain Keras networks: each task alone, or one network task after task."""

import json
import time
from collections.abc import Callable

import keras

from packnet_tf.apps import rates
from packnet_tf.apps.comparison.job import Job, TaskData, accuracy, network_bytes, saved_bytes
from packnet_tf.apps.comparison.settings import Settings
from packnet_tf.atomic import replacing
from packnet_tf.distribution import has_accelerator
from packnet_tf.optimizers import reset_optimizer

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Trains a network on a task: the job, the task, the trunk, the heads so far, its own the last.
Learn = Callable[[Job, TaskData, keras.Model, list], None]


def learn_in_sequence(job: Job, learn: Learn) -> dict:
    """Trains one network on task after task, a head for each; continues where it was stopped.

    Args:
        job: the run.
        learn: trains the network on one task.

    Returns:
        The result of the run, see `worker.py`.
    """
    trunk, heads, state = _resumed(job)
    for task in job.tasks[len(heads) :]:
        job.seed(task.place)
        heads.append(new_head(job, task, trunk))
        began = time.perf_counter()
        learn(job, task, trunk, heads)
        state["seconds"][task.name] = time.perf_counter() - began
        for split in ("validation", "test"):
            seen = zip(job.tasks, heads, strict=False)
            state[split].append(
                [accuracy(with_heads(trunk, [head]), getattr(t, split)) for t, head in seen]
            )
        _keep(job, trunk, heads, state)
    one, every = network_bytes(trunk, heads)
    return {
        **state,
        "bytes": saved_bytes(with_heads(trunk, heads)),
        "head_bytes": sum(variable.value.numpy().nbytes for h in heads for variable in h.variables),
        "one_network_bytes": one,
        "network_per_task_bytes": every,
    }


def new_head(job: Job, task: TaskData, trunk: keras.Model) -> keras.layers.Layer:
    """The head of a task, under a name that no other head of the network has."""
    head = job.head(task, trunk)
    head.name = f"head_{task.place}"
    return head


def train_everything(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> None:
    """Trains all weights of the trunk and the task's head; those of earlier tasks stand still."""
    if task.settings.head != "pretrained":
        fit(with_heads(trunk, heads[-1:]), task, job.folder)


def train_head(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> None:
    """Trains the head on a frozen trunk."""
    if task.settings.head != "pretrained":
        trunk.trainable = False
        fit(with_heads(trunk, heads[-1:]), task, job.folder)
        trunk.trainable = True


def with_heads(trunk: keras.Model, heads: list, model_class: type = keras.Model) -> keras.Model:
    """The model from pixels to the outputs of heads; the layers are those given, not copies."""
    pixels = keras.Input(trunk.input_shape[1:])
    features = trunk(pixels)
    outputs = [head(features) for head in heads]
    return model_class(pixels, outputs if len(outputs) > 1 else outputs[0])


def fit(model: keras.Model, task: TaskData, folder, loss=LOSS, metrics=("accuracy",)) -> None:
    """Trains a model on a task by its settings, in the two phases that packing has.

    Stopped, it continues after the last finished epoch.

    Args:
        model: from pixels to logits.
        task: its data and settings.
        folder: where its progress is kept.
        loss, metrics: as for `compile`.
    """
    settings = task.settings
    phases = TwoPhases(settings, task.name)
    model.compile(
        rates.optimizer(settings.optimizer)(settings.learning_rate),
        loss,
        metrics=list(metrics),
        jit_compile=has_accelerator(),
    )
    model.optimizer.build(model.trainable_variables)
    backup = keras.callbacks.BackupAndRestore(str(folder / "backup"))
    model.fit(
        task.train, epochs=settings.epochs, callbacks=[backup, phases], verbose=0, shuffle=False
    )


class TwoPhases(keras.callbacks.Callback):
    """Sets the learning rate of every epoch, and makes the optimizer fresh at `prune_epoch`."""

    def __init__(self, settings: Settings, name: str):
        super().__init__()
        s = self._settings = settings
        self._name = name
        self._before = rates.decayed(s.learning_rate, s.prune_epoch, s.decay, s.decay_every)
        after = s.epochs - s.prune_epoch
        self._after = rates.decayed(s.rate_after, after, s.decay, s.decay_every)

    def on_epoch_begin(self, epoch, logs=None):
        turn = self._settings.prune_epoch
        if epoch == turn:
            reset_optimizer(self.model.optimizer)
        rate = self._before(epoch) if epoch < turn else self._after(epoch - turn)
        self.model.optimizer.learning_rate = rate

    def on_epoch_end(self, epoch, logs=None):
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        print(f"{self._name}, epoch {epoch + 1}/{self._settings.epochs}: {numbers}", flush=True)


def _resumed(job: Job):
    """Trunk, heads and measurements after the tasks that are done."""
    note = job.folder / "state.json"
    if not note.exists():
        return job.trunk(), [], {"validation": [], "test": [], "seconds": {}}
    state = json.loads(note.read_text(encoding="utf-8"))
    whole = keras.saving.load_model(job.folder / _file(len(state["test"])), compile=False)
    trunk, *heads = [
        layer for layer in whole.layers if not isinstance(layer, keras.layers.InputLayer)
    ]
    return trunk, heads, state


def _keep(job: Job, trunk: keras.Model, heads: list, state: dict) -> None:
    """First the network, then the note that counts it in."""
    path = job.folder / _file(len(heads))
    with replacing(path) as temporary:
        with_heads(trunk, heads).save(temporary)
    with replacing(job.folder / "state.json") as temporary:
        temporary.write_text(json.dumps(state), encoding="utf-8")
    (job.folder / _file(len(heads) - 1)).unlink(missing_ok=True)


def _file(tasks: int) -> str:
    return f"after_{tasks}.keras"
