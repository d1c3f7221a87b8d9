"""`PackTrainer`: packs a list of tasks unattended."""

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from packnet_tf.backend.distribution import has_accelerator, is_chief, scope_of, strategy_of
from packnet_tf.backend.optimizers import steps_of, take_averages
from packnet_tf.backend.types import AnyData, AnyPath
from packnet_tf.net import PackNet
from packnet_tf.packing.pruning import check_ratio, magnitude
from packnet_tf.packing.weight import Criterion
from packnet_tf.planning import equal_shares
from packnet_tf.reporting.quality import shortfalls
from packnet_tf.tasks.task_model import TaskModel
from packnet_tf.trainer.arguments import (
    check_choice,
    check_rates,
    check_tasks,
    check_whole,
    plain_setting,
)
from packnet_tf.trainer.auto import Auto, RatioSearch
from packnet_tf.trainer.board import Board
from packnet_tf.trainer.data import TrainingData, batches, blank_batch
from packnet_tf.trainer.history import History
from packnet_tf.trainer.loop import Loop
from packnet_tf.trainer.metrics import as_numbers, new_metric
from packnet_tf.trainer.progress import Screen, epoch_line, typed_command
from packnet_tf.trainer.run import Run
from packnet_tf.trainer.task import PendingTask, Task
from packnet_tf.training.phases import Gradual, OneShot, PhaseOptions, Phases
from packnet_tf.training.schedules import Schedule

_OPENED: weakref.WeakSet[TaskModel] = weakref.WeakSet()  # task models that trainers have created
Rate = float | Callable[[int], float]
Prune = float | Schedule | Auto


class PackTrainer:
    """Packs a list of tasks: trains, prunes, retrains and commits each; resumes when interrupted.

    Args:
        net: the pack. For several GPUs or hosts, create or load it within the scope of a
            `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy`.
        optimizer: function from a learning rate to a new optimizer, called for every task. Set
            gradient accumulation, weight decay, clipping and averages there. Default: SGD with
            momentum 0.9.
        epochs: epochs of training before the prune.
        retrain_epochs: epochs of retraining after it.
        learning_rate: learning rate of the training: a number, or a function of the epoch, counted
            from 0.
        retrain_learning_rate: the same for the retraining, whose epochs count from 0 again;
            default: a tenth of `learning_rate`.
        prune: how much of its claim a task releases: a ratio, a list of one value per task,
            "equal_shares", a schedule `step -> (should_prune, sparsity)`, which prunes gradually
            during the `epochs`, or `Auto`, which searches for the ratio.
        criterion: selects the weights to release, see `PackNet.prune`.
        directory: where the run saves `pack.keras`, its checkpoint, `history.json` and TensorBoard
            files, and from where it resumes. Hosts must share it. None: nothing is saved.
        loss: default: sparse categorical cross-entropy of logits.
        metrics: as for `compile`; every task gets new ones, created from their `get_config()`.
        batch_size: batch size for arrays, over all devices.
        jit_compile: True, False, or "auto": XLA on one GPU, but not on CPUs, where it is slower.
        steps_per_execution: training steps per call of the traced function; default: as many as
            run in half a second. Results do not depend on it.
        seed: seed for heads, dropout and the order of arrays; None does not seed. With a seed, an
            interrupted run ends with the same result as one that was not interrupted.
        tensorboard: True, False, or "auto": if the package is installed.
        settings: further settings of the run by name, as JSON values. An interrupted run must be
            repeated with the same settings.
        on_commit: called with each task's name after the task is saved.
        verbose: whether to show progress.

    Raises:
        ValueError: an argument cannot be used.

    Example:
        >>> trainer = packnet_tf.PackTrainer(net, epochs=20, retrain_epochs=10,
        ...                                  prune="equal_shares", directory="run/")
        >>> history = trainer.fit([packnet_tf.Task("clothing", head, train, validation, test)])
        >>> print(history)

    Source: Mallya & Lazebnik 2018, section 3.
    """

    def __init__(
        self,
        net: PackNet,
        optimizer: Callable[[float], keras.optimizers.Optimizer] | None = None,
        *,
        epochs: int = 20,
        retrain_epochs: int = 10,
        learning_rate: Rate = 1e-3,
        retrain_learning_rate: Rate | None = None,
        prune: Prune | str | Sequence[Prune] = 0.5,
        criterion: Criterion = magnitude,
        directory: AnyPath | None = None,
        loss: Any = None,
        metrics: Any = ("accuracy",),
        batch_size: int = 32,
        jit_compile: bool | str = "auto",
        steps_per_execution: int | None = None,
        seed: int | None = 0,
        tensorboard: bool | str = "auto",
        settings: Mapping[str, Any] | None = None,
        on_commit: Callable[[str], None] | None = None,
        verbose: bool = True,
    ):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"PackTrainer needs Keras's TensorFlow backend; this process runs on "
                f"{keras.backend.backend()}. Use model.fit with a PackNetCallback there, or set "
                "KERAS_BACKEND=tensorflow."
            )
        epochs, retrain_epochs = check_whole(0, epochs=epochs, retrain_epochs=retrain_epochs)
        (batch_size,) = check_whole(1, batch_size=batch_size)
        if steps_per_execution is not None:
            (steps_per_execution,) = check_whole(1, steps_per_execution=steps_per_execution)
        check_choice(jit_compile=jit_compile, tensorboard=tensorboard)
        check_rates(learning_rate=learning_rate)
        if retrain_learning_rate is not None:
            check_rates(retrain_learning_rate=retrain_learning_rate)
        self.net = net
        self.optimizer = optimizer or (lambda rate: keras.optimizers.SGD(rate, momentum=0.9))
        self.epochs, self.retrain_epochs = epochs, retrain_epochs
        self.learning_rate = learning_rate
        self.retrain_learning_rate = retrain_learning_rate
        self.prune, self.criterion = prune, criterion
        self.loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        keras.tree.map_structure(new_metric, metrics)  # refuses metrics that cannot be recreated
        self.metrics = metrics
        self.batch_size = batch_size
        self.jit_compile = jit_compile
        self.steps_per_execution = steps_per_execution
        self.seed = seed
        self._strategy = strategy_of(net)
        self._compiles()
        chief = is_chief(self._strategy)
        self._run = Run(directory, chief)
        self._tensorboard = tensorboard
        self._screen = Screen(verbose and chief)
        self._on_commit = on_commit or (lambda task: None)
        self._given = dict(settings or {})
        self._settings = {
            "epochs": epochs,
            "retrain_epochs": retrain_epochs,
            "prune": plain_setting(prune),
            "batch_size": batch_size,
            "seed": seed,
        }

    @property
    def history(self) -> History:
        """The measurements so far."""
        return self._run.history

    def resume(self) -> None:
        """Restores the tasks that an interrupted run in the directory has packed.

        `fit` does so too.

        Raises:
            ValueError: as for `fit`.
        """
        with scope_of(self._strategy):
            self._run.open(self.net, self._settings, self._given)

    def fit(self, tasks: Task | PendingTask | Sequence[Task | PendingTask]) -> History:
        """Packs the tasks that the pack does not have yet, in order.

        Args:
            tasks: tasks with different names; a `PendingTask` is prepared when its turn comes.

        Returns:
            The measurements; they print as a table, and are in `history.json` too.

        Raises:
            ValueError: the tasks or settings are invalid, or differ from those of the interrupted
                run in the directory.
            FloatingPointError: the loss has become NaN or infinite. A new run resumes from the last
                good epoch; use a lower learning rate.
            SystemExit: Ctrl-C, with status 130, after printing how to continue.
        """
        tasks = [tasks] if isinstance(tasks, (Task, PendingTask)) else list(tasks)
        check_tasks(tasks)
        prunes = self._prunes(tasks)
        unfinished = self.net.open_model
        names = [task.name for task in tasks]
        if unfinished is not None and unfinished in _OPENED and unfinished.task_name in names:
            self.net.discard()  # from an interrupted `fit`; its checkpoint restores the task
        self.net.state.check_none_open(tasks[0].name if tasks else "")
        with scope_of(self._strategy):
            self._run.open(self.net, self._settings, self._given)
            self._board = Board(self._run.tensorboard, self._tensorboard)
            try:
                with self._screen.open():
                    for task, prune in zip(tasks, prunes, strict=True):
                        if self._run.has_packed(task.name, self.net):
                            self._screen.say(f"{task.name}: packed already")
                        else:
                            self._pack(task, prune)
                            self._on_commit(task.name)
            except KeyboardInterrupt:
                self._interrupted()
        return self._run.history

    # -- One task --------------------------------------------------------------------------------

    def _pack(self, coming: Task | PendingTask, prune: Prune) -> None:
        task = self._prepared(coming)
        self._check_validation(task, prune)
        model = self._open(task)
        try:
            training_data = TrainingData(
                task.train, self.batch_size, self.seed, model.distribute_strategy
            )
            phases = self._phases(model, task, prune)
            saved = self._run.resume(task.name, model, phases)
        except ValueError:  # no training is lost
            self.net.discard()
            raise
        loop = Loop(model, self._compiles(), self.steps_per_execution)
        entry: dict[str, Any] = {"epochs": [], "seconds": 0.0}
        if saved is not None:
            entry = saved
            epoch = len(entry["epochs"])
            self._screen.say(f"{task.name}: continuing after {epoch} epochs")
        while phases.epochs is None or len(entry["epochs"]) < phases.epochs:
            began = time.perf_counter()
            self._epoch(len(entry["epochs"]), task, model, phases, loop, training_data, entry)
            entry["seconds"] += time.perf_counter() - began
            self._run.checkpoint(task.name, model, phases, entry)
        model.seen.remember_fit(training_data.after(len(entry["epochs"])))
        self._commit(task, model, phases, entry, getattr(coming, "finish", None))

    def _prepared(self, task: Task | PendingTask) -> Task:
        if isinstance(task, Task):
            return task
        self._set_seed()
        memory, before = self._run.memory(task.name), self.net.tasks
        found = task.prepare(self.net, memory)
        if self.net.tasks != before:
            self._run.keep(self.net)
        self._run.remember(task.name, memory)
        return found

    def _set_seed(self) -> None:
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed + len(self.net.tasks))

    def _open(self, task: Task) -> TaskModel:
        self._set_seed()
        model = self.net.add_task(
            task.name, task.head, task.classes, task.claim_ratio, task.statistics, task.reuse
        )
        _OPENED.add(model)
        model.compile(
            self.optimizer(self._rate(self.learning_rate, 0) * task.rate_factors[0]),
            loss=self.loss,
            metrics=keras.tree.map_structure(new_metric, self.metrics),
            jit_compile=self._compiles(),
        )
        model.optimizer.build(model.trainable_variables)
        model.test_on_batch(*blank_batch(task.train, self.batch_size))  # builds the metrics
        return model

    def _phases(self, model: TaskModel, task: Task, prune: Prune) -> Phases:
        common: PhaseOptions = {"criterion": self.criterion}
        if task.validation is not None:
            common["evaluate"] = lambda: self._evaluate(model, task.validation)
        if isinstance(prune, Auto):
            prune.check_monitor(list(model.get_metrics_result()))
            return RatioSearch(model, prune, self.epochs, self.retrain_epochs, **common)
        phases: Phases = (
            Gradual(model, prune, self.epochs, **common)
            if callable(prune)
            else OneShot(model, prune, self.epochs, **common)
        )
        phases.epochs = self.epochs + self.retrain_epochs
        return phases

    def _epoch(
        self,
        epoch: int,
        task: Task,
        model: TaskModel,
        phases: Phases,
        loop: Loop,
        training_data: TrainingData,
        entry: dict[str, Any],
    ) -> None:
        iterator, steps = training_data.start(epoch)
        phases.epoch_begins(epoch)
        retraining = phases.retraining_epoch(epoch)
        rate = self._set_rate(model.optimizer, epoch, retraining, task.rate_factors)
        phase = "training" if retraining is None else "retraining"
        self._screen.begin_epoch(task.name, phase, self._epochs_left(phases, epoch), steps)
        first = steps_of(model.optimizer)
        model.reset_metrics()  # evaluate left its results in them
        began = time.perf_counter()
        try:
            steps, examples = loop.epoch(iterator, phases, first, self._screen.steps)
        except ValueError as error:  # a prune within the epoch cannot rank NaN
            if all(weight.claim_is_finite() for weight in self.net.state.weights.values()):
                raise
            raise self._diverged(task, epoch, rate) from error
        seconds = time.perf_counter() - began
        if steps == 0:
            raise ValueError(
                f"The training data of task '{task.name}' have no batches in epoch {epoch}. A "
                "dataset made from a generator must begin again for every iterator."
            )
        logs = as_numbers(model.get_metrics_result())
        if not math.isfinite(logs["loss"]):
            raise self._diverged(task, epoch, rate)
        if task.validation is not None:
            measured = self._evaluate(model, task.validation)
            logs |= {f"val_{name}": value for name, value in measured.items()}
        claimed, sparsity = self.net.state.claimed_share()
        row = {"epoch": epoch, "phase": phase, "learning_rate": rate, **logs}
        row |= {"claimed": claimed, "sparsity": sparsity, "seconds": seconds, "steps": steps}
        row["examples_per_second"] = examples / seconds
        entry["epochs"].append(row)
        phases.epoch_ends(epoch, logs)
        self._board.epoch(task.name, row)
        self._screen.say(epoch_line(task.name, row, phases.epochs))

    def _commit(
        self,
        task: Task,
        model: TaskModel,
        phases: Phases,
        entry: dict[str, Any],
        finish: Callable[[PackNet, dict], None] | None,
    ) -> None:
        take_averages(model.optimizer, model)
        # Prunes now if no epoch has pruned (with retrain_epochs=0, say).
        phases.epoch_begins(phases.epochs or 0)
        sparsity = self.net.state.claimed_share()[1]
        phases.finish()
        entry |= {
            "prune_ratio": sparsity,
            "before_prune": phases.around_prune.get("before", {}),
            "after_prune": phases.around_prune.get("after", {}),
            "retrained": {},
            "test": {},
            "capacity": self.net.capacity().free,
        }
        if isinstance(phases, RatioSearch):
            entry["rounds"] = phases.state()["rounds"]
        for moment, data in {"retrained": task.validation, "test": task.test}.items():
            if data is not None:
                entry[moment] = self._evaluate(model, data)
        self._record_results(task, entry)
        if finish is not None:
            finish(self.net, entry)
            self._record_results(task, entry)
        for sentence in shortfalls(task.name, self.net.results(task.name)):
            self._screen.say(f"WARNING: {sentence}")
        self._run.commit(task.name, self.net, entry)
        self._board.owners(self.net)

    def _record_results(self, task: Task, entry: dict) -> None:
        """Records the accuracies with the task."""
        moments = ("before_prune", "after_prune", "retrained", "test")
        found = {m: entry[m]["accuracy"] for m in moments if "accuracy" in entry[m]}
        self.net.note_results(task.name, **task.reference, **found)

    # -- Helpers ---------------------------------------------------------------------------------

    def _prunes(self, tasks: Sequence[Task | PendingTask]) -> list[Prune]:
        """Returns one value of `prune` per task."""
        prune: Prune | Sequence[Prune]
        if isinstance(self.prune, str):
            if self.prune != "equal_shares":
                raise ValueError(
                    f"prune={self.prune!r} is none of the ways to prune; write "
                    'prune="equal_shares", '
                    "a ratio, a list of ratios, a schedule, or packnet_tf.Auto(max_drop=0.01)."
                )
            prune = equal_shares(len(tasks)) if tasks else []
        else:
            prune = self.prune
        prunes = list(prune) if isinstance(prune, Sequence) else [prune] * len(tasks)
        if len(prunes) != len(tasks):
            raise ValueError(
                f"prune has {len(prunes)} values for {len(tasks)} tasks. Give one per task, or a "
                "single one for all."
            )
        for task, given in zip(tasks, prunes, strict=True):
            if isinstance(task, Task):
                self._check_validation(task, given)
            if not callable(given) and not isinstance(given, Auto):
                check_ratio(given)
        return prunes

    @staticmethod
    def _check_validation(task: Task, prune: Prune) -> None:
        if isinstance(prune, Auto) and task.validation is None:
            raise ValueError(
                f"Auto needs validation data, and task '{task.name}' has none. Write Task("
                f"'{task.name}', head, train, validation)."
            )

    def _evaluate(self, model: TaskModel, data: AnyData) -> dict[str, float]:
        data = batches(data, self.batch_size)
        return as_numbers(model.evaluate(data, verbose=0, return_dict=True))

    def _compiles(self) -> bool:
        replicas = 1 if self._strategy is None else self._strategy.num_replicas_in_sync
        if self.jit_compile == "auto":
            return has_accelerator() and replicas == 1
        if self.jit_compile and replicas > 1:
            raise ValueError(
                f"jit_compile=True trains on one device, and this pack is spread over {replicas}: "
                "TensorFlow cannot compile the exchange of gradients with XLA. Write "
                "jit_compile=False."
            )
        return bool(self.jit_compile)

    def _set_rate(
        self,
        optimizer: keras.optimizers.Optimizer,
        epoch: int,
        retraining: int | None,
        factors: tuple[float, float],
    ) -> float:
        if retraining is None:
            rate = self._rate(self.learning_rate, epoch) * factors[0]
        elif self.retrain_learning_rate is None:
            rate = self._rate(self.learning_rate, retraining) / 10 * factors[1]
        else:
            rate = self._rate(self.retrain_learning_rate, retraining) * factors[1]
        try:
            optimizer.learning_rate = rate
        except (TypeError, AttributeError):  # an optimizer with its own schedule keeps it
            rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        return rate

    @staticmethod
    def _rate(rate: Rate, epoch: int) -> float:
        return float(rate(epoch)) if callable(rate) else float(rate)

    @staticmethod
    def _epochs_left(phases: Phases, epoch: int) -> int | None:
        end = phases.epoch if phases.retraining_epoch(epoch) is None else phases.epochs
        return None if end is None else end - epoch

    def _diverged(self, task: Task, epoch: int, rate: float) -> FloatingPointError:
        """Discards the task and creates the error for a loss that is NaN or infinite."""
        self.net.discard()
        kept = "Nothing was kept, since the trainer has no directory: train it again"
        if self._run.directory is not None:
            kept = (
                f"The epochs before it are in '{self._run.directory}': the same command goes on "
                "from there"
            )
        return FloatingPointError(
            f"Training of task '{task.name}' diverged: the loss of epoch {epoch + 1} is NaN or "
            f"infinite, at a learning rate of {rate:g}. {kept} with a lower learning_rate, for "
            f"instance a third of it."
        )

    def _interrupted(self) -> None:
        where = "nothing was kept, since the trainer has no directory"
        if self._run.directory is not None:
            where = f"epochs that were finished are in '{self._run.directory}'. To continue:"
            where += f"\n  {typed_command()}"
        self._screen.say(f"Interrupted; {where}")
        raise SystemExit(130) from None
