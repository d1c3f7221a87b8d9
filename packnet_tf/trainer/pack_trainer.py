"""`PackTrainer`: packs a list of tasks unattended."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from packnet_tf.backend.distribution import is_chief, scope_of, strategy_of, wait_for_others
from packnet_tf.backend.json_files import as_json
from packnet_tf.backend.types import AnyPath
from packnet_tf.net import PackNet
from packnet_tf.packing.pruning import check_ratio, magnitude
from packnet_tf.packing.weight import Criterion
from packnet_tf.planning import equal_shares
from packnet_tf.reporting.history import History
from packnet_tf.trainer.arguments import (
    Prune,
    check_search,
    check_tasks,
    plain_setting,
    uses_xla,
)
from packnet_tf.trainer.logs import Logs
from packnet_tf.trainer.metrics import new_metric
from packnet_tf.trainer.progress import Screen, typed_command
from packnet_tf.trainer.run import Run
from packnet_tf.trainer.task import PendingTask, Task
from packnet_tf.trainer.task_training import TaskTraining, opened_by_trainer, seed_task
from packnet_tf.training.auto import Auto
from packnet_tf.training.values import (
    Rate,
    check_choice,
    check_functions,
    check_rates,
    check_whole,
)


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
            during the `epochs`, or `Auto`, which searches for the ratio in further epochs.
        criterion: selects the weights to release, see `PackNet.prune`.
        directory: where the run saves `pack.keras`, its checkpoint and `history.json`, and from
            where it resumes. Hosts must share it. None: nothing is saved.
        logs: folder that gets a folder per task: its `history.json`, `epochs.csv` and TensorBoard
            files. Default: `logs` in the directory.
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
        on_commit: called with the name of every task of the list once it is saved, also if an
            earlier run has packed it.
        on_epoch: called after every epoch, on the first host, with the task's name and a dict of
            the epoch's numbers, an entry of `epochs` of `History`. The epoch is saved by then.
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
        logs: AnyPath | None = None,
        loss: Any = None,
        metrics: Any = ("accuracy",),
        batch_size: int = 32,
        jit_compile: bool | str = "auto",
        steps_per_execution: int | None = None,
        seed: int | None = 0,
        tensorboard: bool | str = "auto",
        settings: Mapping[str, Any] | None = None,
        on_commit: Callable[[str], None] | None = None,
        on_epoch: Callable[[str, dict], None] | None = None,
        verbose: bool = True,
    ):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"PackTrainer needs Keras's TensorFlow backend; this process runs on "
                f"{keras.backend.backend()}. Use model.fit with a PackNetCallback there, or set "
                "KERAS_BACKEND=tensorflow."
            )
        if not isinstance(net, PackNet):
            raise ValueError(
                f"PackTrainer takes a pack; got {net!r}. Write "
                "PackTrainer(packnet_tf.PackNet(trunk))."
            )
        epochs, retrain_epochs = check_whole(0, epochs=epochs, retrain_epochs=retrain_epochs)
        (batch_size,) = check_whole(1, batch_size=batch_size)
        if steps_per_execution is not None:
            (steps_per_execution,) = check_whole(1, steps_per_execution=steps_per_execution)
        check_choice(jit_compile=jit_compile, tensorboard=tensorboard)
        check_rates(learning_rate=learning_rate)
        if retrain_learning_rate is not None:
            check_rates(retrain_learning_rate=retrain_learning_rate)
        check_functions(
            optimizer=optimizer, criterion=criterion, on_commit=on_commit, on_epoch=on_epoch
        )
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
        uses_xla(jit_compile, self._strategy)  # refuses what cannot be
        chief = is_chief(self._strategy)
        self._run = Run(directory, chief)
        where = self._run.logs if logs is None else logs
        self._logs = Logs(where if chief else None, tensorboard)
        self._screen = Screen(verbose and chief)
        self.on_epoch = on_epoch if on_epoch and chief else lambda task, numbers: None
        self._on_commit = on_commit or (lambda task: None)
        self._given = as_json(settings or {}, "The settings of the run")
        self._settings = {
            "epochs": epochs,
            "retrain_epochs": retrain_epochs,
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
        """Packs, in order, the tasks that this run or an earlier one in its directory has not.

        Args:
            tasks: tasks with different names; a `PendingTask` is prepared when its turn comes.

        Returns:
            The measurements; they print as a table, and are in `history.json` too.

        Raises:
            ValueError: the tasks or settings are invalid, or differ from those of the interrupted
                run in the directory, or the pack has a task of that name from elsewhere, or has
                changed since the run began.
            BlockingIOError: another process works in the directory.
            FloatingPointError: the loss, or a weight, has become NaN or infinite. A new run resumes
                from the last good epoch; use a lower learning rate.
            SystemExit: Ctrl-C, with status 130, after printing how to continue.
        """
        tasks = [tasks] if isinstance(tasks, (Task, PendingTask)) else list(tasks)
        check_tasks(tasks)
        prunes = self._prunes(tasks)
        unfinished = self.net.open_model
        names = [task.name for task in tasks]
        if (
            unfinished is not None
            and opened_by_trainer(unfinished)
            and unfinished.task_name in names
        ):
            self.net.discard()  # from an interrupted `fit`; its checkpoint restores the task
        self.net.state.check_none_open(tasks[0].name if tasks else "")
        with self._run.alone(), scope_of(self._strategy):
            self._open_run(tasks, prunes)
            try:
                with self._screen.open():
                    for task, prune in zip(tasks, prunes, strict=True):
                        if self._run.has_packed(task.name, self.net):
                            self._screen.say(f"{task.name}: packed already")
                        else:
                            self._pack(task, prune)
                        self._logs.packed(task.name, self._run.history.get(task.name))
                        self._on_commit(task.name)
            except KeyboardInterrupt:
                self._interrupted()
            finally:
                self._logs.close()
        return self._run.history

    def _open_run(self, tasks: list[Task | PendingTask], prunes: list[Prune]) -> None:
        whole = plain_setting(self.prune)  # which versions up to 0.1 kept, instead of the task's
        accepted = {
            task.name: [plain_setting(prune), whole]
            for task, prune in zip(tasks, prunes, strict=True)
        }
        self._run.open(self.net, self._settings, self._given, accepted)

    def _pack(self, coming: Task | PendingTask, prune: Prune) -> None:
        if isinstance(coming, Task):
            self._training(coming, prune).pack()
            return
        memory: dict | None = self._run.memory(coming.name)
        wait_for_others(self._strategy)  # all have read it before the chief writes
        while memory is not None:
            # In one expression: nothing holds the data of a way when the next one is prepared.
            memory = self._training(self._prepared(coming, memory), prune).pack(coming)

    def _training(self, task: Task, prune: Prune) -> TaskTraining:
        return TaskTraining(self, task, prune, self._run, self._screen, self._logs)

    def _prepared(self, task: PendingTask, memory: dict) -> Task:
        place, before = self._run.place(task.name, self.net), self.net.tasks
        seed_task(self.seed, place)
        found = task.prepare(self.net, memory)
        if not isinstance(found, Task) or found.name != task.name:
            what = f"task '{found.name}'" if isinstance(found, Task) else repr(found)
            raise ValueError(
                f"prepare of the pending task '{task.name}' returned {what}; expected a "
                f"packnet_tf.Task of that name. Write return packnet_tf.Task('{task.name}', head, "
                "train, validation)."
            )
        if self.net.tasks != before:
            self._run.keep_prepared(task.name, place, self.net)
        self._run.remember(task.name, memory)
        return found

    def _prunes(self, tasks: Sequence[Task | PendingTask]) -> list[Prune]:
        """Returns one value of `prune` per task."""
        prune: Prune | Sequence[Prune]
        if isinstance(self.prune, str):
            if self.prune != "equal_shares":
                raise ValueError(
                    f"prune={self.prune!r} is none of the ways to prune; write "
                    'prune="equal_shares", a ratio, a list of ratios, a schedule, or '
                    "packnet_tf.Auto(max_drop=0.01)."
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
                check_search(task, given, self.retrain_epochs)
            if not callable(given) and not isinstance(given, Auto):
                check_ratio(given)
        return prunes

    def _interrupted(self) -> None:
        where = "nothing was kept, since the trainer has no directory"
        if self._run.directory is not None:
            where = f"epochs that were finished are in '{self._run.directory}'. To continue:"
            where += f"\n  {typed_command()}"
        self._screen.say(f"Interrupted; {where}")
        raise SystemExit(130) from None
