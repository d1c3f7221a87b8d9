"""Trains one task of a `PackTrainer`, from its first epoch to its commit."""

import math
import time
import weakref
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import ops

from packnet_tf.backend.distribution import strategy_of
from packnet_tf.backend.json_files import as_json
from packnet_tf.backend.optimizers import steps_of, take_averages
from packnet_tf.backend.types import AnyData
from packnet_tf.reporting.quality import shortfalls
from packnet_tf.tasks.checks import as_results
from packnet_tf.tasks.task_model import TaskModel
from packnet_tf.tasks.transaction import Transaction
from packnet_tf.trainer.arguments import Prune, check_search, plain_setting, uses_xla
from packnet_tf.trainer.data import TrainingData, blank_batch, for_evaluation
from packnet_tf.trainer.divergence import diverged, trains_finite
from packnet_tf.trainer.labels import check_one_hot, outside
from packnet_tf.trainer.logs import Logs
from packnet_tf.trainer.loop import Loop
from packnet_tf.trainer.metrics import new_metric, with_accuracy
from packnet_tf.trainer.progress import Screen, epoch_line
from packnet_tf.trainer.run import Run
from packnet_tf.trainer.task import PendingTask, Task
from packnet_tf.training.auto import Auto
from packnet_tf.training.class_weights import check_class_weight
from packnet_tf.training.overlay_search import MAX_DROP, OverlaySearch, largest_share
from packnet_tf.training.phases import Gradual, OneShot, PhaseOptions, Phases
from packnet_tf.training.ratio_search import RatioSearch
from packnet_tf.training.rounds import Search
from packnet_tf.training.values import Rate, as_numbers

if TYPE_CHECKING:
    from packnet_tf.trainer.pack_trainer import PackTrainer

_OPENED: weakref.WeakSet[TaskModel] = weakref.WeakSet()  # task models that trainers have created


def opened_by_trainer(model: TaskModel) -> bool:
    """Returns whether a trainer created the model, so that a checkpoint may restore it."""
    return model in _OPENED


def seed_task(seed: int | None, place: int) -> None:
    """Seeds the random generators for a task.

    Args:
        seed: the trainer's seed; None leaves the generators alone.
        place: how many tasks come before it.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed + place)


class _AnotherWay(Exception):
    """Undoes the commit of a task that is to be packed in another way.

    Args:
        memory: what `retry` returned.
    """

    def __init__(self, memory: dict) -> None:
        super().__init__()
        self.memory = memory


class TaskTraining:
    """Trains, prunes, retrains and commits one task.

    Args:
        trainer: the trainer, for its settings.
        task: the task.
        prune: the task's value of `PackTrainer(prune=...)`.
        run: the directory of the run.
        screen: shows the progress.
        logs: writes the measurements.

    Attributes:
        entry: the task's entry in the history.
        model: the task's model, once `pack` has opened the task.
        phases: the task's phases, from then on.
    """

    model: TaskModel
    phases: Phases

    def __init__(
        self,
        trainer: "PackTrainer",
        task: Task,
        prune: Prune,
        run: Run,
        screen: Screen,
        logs: Logs,
    ) -> None:
        self.trainer, self.net, self.task = trainer, trainer.net, task
        self._prune, self._run, self._screen, self._logs = prune, run, screen, logs
        self._epochs, self._retrain_epochs = self._of("epochs"), self._of("retrain_epochs")
        self._rate = self._of("learning_rate")
        self._retrain_rate = self._of("retrain_learning_rate")
        self._jit_compile = uses_xla(trainer.jit_compile, strategy_of(self.net))
        self.entry: dict[str, Any] = {"epochs": [], "seconds": 0.0}

    def _of(self, name: str) -> Any:
        """Returns a setting of the task, by default that of the trainer."""
        own = getattr(self.task, name)
        return getattr(self.trainer, name) if own is None else own

    @property
    def _plan(self) -> dict[str, Any]:
        """The settings of the task that must not change within it."""
        return {
            "prune": plain_setting(self._prune),
            "epochs": self._epochs,
            "retrain_epochs": self._retrain_epochs,
        }

    @property
    def _epochs_done(self) -> int:
        return len(self.entry["epochs"])

    def pack(self, pending: PendingTask | None = None) -> dict | None:
        """Opens the task, trains the epochs that are left, and commits it.

        Args:
            pending: what has prepared the task, for its `finish` and `retry`; None: nothing has.

        Returns:
            What `retry` returned: if a dict, the task is discarded.

        Raises:
            FloatingPointError: the training has diverged; the task is discarded.
            ValueError: the task's data do not fit the trainer's settings, or the interrupted run
                in the directory; the task is then not open. Or the data have no batches.
        """
        check_search(self.task, self._prune, self._retrain_epochs)
        self.model = self._open()
        try:
            self._compile()
            data = TrainingData(
                self.task.train,
                self.trainer.batch_size,
                self.trainer.seed,
                self.model.distribute_strategy,
                self.task.class_weight,
            )
            for held_out in (self.task.validation, self.task.test):
                if held_out is not None:  # refused now, not after the training
                    for_evaluation(held_out, self.trainer.batch_size)
            self.phases = self._phases(self._prune)
            saved = self._run.resume(self.task.name, self.model, self.phases, self._plan)
        except ValueError:  # no training is lost
            self.net.discard()
            raise
        if self.task.class_weight == "balanced" and data.class_weight:  # others are given so
            weights = [f"{label}: {weight:.3g}" for label, weight in data.class_weight.items()]
            self._screen.say(f"{self.task.name}: weights by class {', '.join(weights)}")
        if saved is not None:
            self.entry = saved
            self._screen.say(f"{self.task.name}: continuing after {self._epochs_done} epochs")
        try:
            self._train(data)
            # All or nothing: stopped before the run has saved it, the task is open as before.
            with Transaction(self.net):
                self._commit(pending)
        except FloatingPointError:
            memory = self._another_way(pending, {**self.entry, "diverged": True})
            if memory is None:
                raise
        except _AnotherWay as way:
            self.net.discard()
            memory = way.memory
        else:
            self._logs.owners(self.net)
            return None
        self._run.start_again(self.task.name, memory)
        return memory

    def _train(self, data: TrainingData) -> None:
        """Trains the epochs that are left."""
        loop = Loop(self.model, self._jit_compile, self.trainer.steps_per_execution)
        while self.phases.epochs is None or self._epochs_done < self.phases.epochs:
            began = time.perf_counter()
            try:
                self._epoch(self._epochs_done, data, loop)
            finally:
                data.end()
            self.entry["seconds"] += time.perf_counter() - began
            self._run.checkpoint(self.task.name, self.model, self.phases, self.entry, self._plan)
            self.trainer.on_epoch(self.task.name, dict(self.entry["epochs"][-1]))
        self.model.seen.remember_fit(data.after(self._epochs_done))
        take_averages(self.model.optimizer, self.model)
        # Prunes now if no epoch has pruned (with retrain_epochs=0, say).
        self.phases.epoch_begins(self.phases.epochs or 0)

    def _open(self) -> TaskModel:
        trainer, task = self.trainer, self.task
        seed_task(trainer.seed, len(self.net.tasks))
        model = self.net.add_task(
            task.name,
            task.head,
            task.classes,
            claim_ratio=task.claim_ratio,
            statistics=task.statistics,
            reuse=task.reuse,
            overlay=largest_share(task.overlay),
        )
        _OPENED.add(model)
        return model

    def _compile(self) -> None:
        trainer, task, model = self.trainer, self.task, self.model
        optimizer = trainer.optimizer(_at(self._rate, 0) * task.rate_factors[0])
        if isinstance(optimizer, keras.optimizers.MultiOptimizer):
            raise ValueError(
                "PackTrainer sets one learning rate for every epoch, and a MultiOptimizer has "
                "several. Return one optimizer, or train with model.fit and PackNetCallback."
            )
        model.compile(
            optimizer,
            loss=trainer.loss,
            metrics=keras.tree.map_structure(new_metric, trainer.metrics),
            jit_compile=self._jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
        batch = blank_batch(task.train, trainer.batch_size)
        if isinstance(model.output_shape, tuple):
            # One output tells two classes apart.
            check_class_weight(task.class_weight, max(model.output_shape[-1], 2))
            check_one_hot(task.name, trainer.loss, batch[1], model.output_shape)
        model.test_on_batch(*batch)  # builds the metrics

    def _phases(self, prune: Prune) -> Phases:
        trainer, model, validation = self.trainer, self.model, self.task.validation
        common: PhaseOptions = {"criterion": trainer.criterion}
        if validation is not None:
            common["evaluate"] = lambda: self._evaluate(validation)
        spans = self._epochs, self._retrain_epochs
        if self.task.overlay == "auto":
            auto = prune if isinstance(prune, Auto) else Auto(MAX_DROP)
            return OverlaySearch(model, auto, *spans, **common)
        if (callable(prune) or isinstance(prune, Auto)) and self.task.overlay is not None:
            prune = 0.0  # all weights train until the choice, which is made once
        if isinstance(prune, Auto):
            return RatioSearch(model, prune, *spans, **common)
        phases: Phases = (
            Gradual(model, prune, self._epochs, **common)
            if callable(prune)
            else OneShot(model, prune, self._epochs, **common)
        )
        phases.epochs = self._epochs + self._retrain_epochs
        return phases

    def _epoch(self, epoch: int, data: TrainingData, loop: Loop) -> None:
        task, model, phases = self.task, self.model, self.phases
        iterator, steps = data.start(epoch)
        phases.epoch_begins(epoch)
        retraining = phases.retraining_epoch(epoch)
        rate = self._set_rate(epoch, retraining)
        phase = "training" if retraining is None else "retraining"
        self._screen.begin_epoch(task.name, phase, self._epochs_left(epoch), steps)
        first = steps_of(model.optimizer)
        model.reset_metrics()  # evaluate left its results in them
        began = time.perf_counter()
        try:
            steps, examples = loop.epoch(iterator, phases, first, self._screen.steps)
        except ValueError as error:  # a prune within the epoch cannot rank NaN
            if trains_finite(self.net, model):
                raise
            raise self._diverged(epoch, rate, data) from error
        except tf.errors.InvalidArgumentError as error:
            self._check_labels(data, error)
            raise
        seconds = time.perf_counter() - began
        if steps == 0:
            raise ValueError(
                f"The training data of task '{task.name}' have no batches in epoch {epoch}. A "
                "dataset made from a generator must begin again for every iterator."
            )
        logs = as_numbers(model.get_metrics_result())
        if not (math.isfinite(logs["loss"]) and trains_finite(self.net, model)):
            raise self._diverged(epoch, rate, data)
        if task.validation is not None:
            measured = self._evaluate(task.validation)
            if math.isnan(measured.get("loss", 0.0)):
                raise self._diverged(epoch, rate, data)
            logs |= {f"val_{name}": value for name, value in measured.items()}
        claimed, sparsity = self.net.state.claimed_share()
        row = {"epoch": epoch, "phase": phase, "learning_rate": rate, **logs}
        row |= {"claimed": claimed, "sparsity": sparsity, "seconds": seconds, "steps": steps}
        row["examples_per_second"] = examples / seconds
        self.entry["epochs"].append(row)
        phases.epoch_ends(epoch, logs)
        self._logs.epoch(task.name, self.entry)
        self._screen.say(epoch_line(task.name, row, phases.epochs))

    def _commit(self, pending: PendingTask | None) -> None:
        task, phases, entry = self.task, self.phases, self.entry
        sparsity = self.net.state.claimed_share()[1]
        phases.finish()
        entry |= {
            "prune_ratio": sparsity,
            "before_prune": phases.around_prune.get("before", {}),
            "after_prune": phases.around_prune.get("after", {}),
            "retrained": {},
            "test": {},
            "reference": as_results(task.name, task.reference),
            "capacity": self.net.capacity().free,
        }
        if isinstance(phases, Search):
            entry["rounds"] = phases.state()["rounds"]
        for moment, data in {"retrained": task.validation, "test": task.test}.items():
            if data is not None:
                entry[moment] = self._evaluate(data)
        self._record_results()
        memory = self._another_way(pending, entry)
        if memory is not None:
            raise _AnotherWay(memory)
        if pending is not None and pending.finish is not None:
            pending.finish(self.net, entry)
            self._record_results()
        for sentence in shortfalls(task.name, self.net.results(task.name)):
            self._screen.say(f"WARNING: {sentence}")
        self._run.commit(task.name, self.net, entry)

    def _another_way(self, pending: PendingTask | None, entry: dict) -> dict | None:
        """Asks whether to pack the task in another way; returns what to prepare it with."""
        if pending is None or pending.retry is None:
            return None
        found = pending.retry(self.net, entry)
        what = f"What retry of the pending task '{self.task.name}' has returned"
        return None if found is None else as_json(found, what)

    def _record_results(self) -> None:
        """Records the accuracies with the task."""
        task, entry = self.task, self.entry
        moments = ("before_prune", "after_prune", "retrained", "test")
        found = {m: entry[m]["accuracy"] for m in moments if "accuracy" in entry[m]}
        self.net.note_results(task.name, **task.reference, **found)
        self.net.note_metadata(task.name, **task.metadata)

    def _evaluate(self, data: AnyData) -> dict[str, float]:
        data = for_evaluation(data, self.trainer.batch_size)
        found = as_numbers(self.model.evaluate(data, verbose=0, return_dict=True))
        if not found:
            raise ValueError(
                f"The validation or test data of task '{self.task.name}' have no batches. A "
                "dataset made from a generator must begin again for every iterator."
            )
        return with_accuracy(found)

    def _set_rate(self, epoch: int, retraining: int | None) -> float:
        """Sets the learning rate of an epoch; returns the one that is used."""
        factors, optimizer = self.task.rate_factors, self.model.optimizer
        if retraining is None:
            rate = _at(self._rate, epoch) * factors[0]
        elif self._retrain_rate is None:
            rate = _at(self._rate, retraining) / 10 * factors[1]
        else:
            rate = _at(self._retrain_rate, retraining) * factors[1]
        try:
            optimizer.learning_rate = rate
        except (TypeError, AttributeError):  # an optimizer with its own schedule keeps it
            rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        return rate

    def _epochs_left(self, epoch: int) -> int | None:
        """Returns how many epochs the phase has left, with this one; None if it is not known."""
        phases = self.phases
        end = phases.epoch if phases.retraining_epoch(epoch) is None else phases.epochs
        return None if end is None else end - epoch

    def _check_labels(self, data: TrainingData, error: Exception | None = None) -> None:
        """Discards the task if its labels are the reason why training has failed.

        Raises:
            ValueError: they are.
        """
        shape = self.model.output_shape
        if isinstance(shape, tuple):
            said = outside(self.task.name, self.trainer.loss, data.labels(), shape[-1])
            if said is not None:
                self.net.discard()
                raise ValueError(said) from error

    def _diverged(self, epoch: int, rate: float, data: TrainingData) -> FloatingPointError:
        """Discards the task and creates the error for a loss that is NaN or infinite."""
        self._check_labels(data)
        self.net.discard()
        return diverged(self.task.name, epoch, rate, self._run.directory)


def _at(rate: Rate, epoch: int) -> float:
    """Returns the learning rate at an epoch of its phase."""
    return float(rate(epoch)) if callable(rate) else float(rate)
