"""Checks of what tasks are added, committed and released with, and of the state of a pack."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from packnet_tf.backend.text import listed
from packnet_tf.normalization.following import moves_statistics
from packnet_tf.packing.weight import MAX_TASKS, PackedWeight, is_finite
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.tasks.integrity.names import check_portable
from packnet_tf.tasks.records import TaskRecord
from packnet_tf.tasks.task_model import TaskModel


def check_name(name: str, taken: Sequence[str]) -> None:
    """Refuses an invalid name for a new task.

    Args:
        name: the user's value.
        taken: names of the committed tasks.

    Raises:
        ValueError: the name is taken or cannot be a file name.
    """
    check_portable(name)
    if name in taken:
        raise ValueError(
            f"Cannot add task '{name}': the pack has a task of that name. Its tasks are "
            f"{listed(taken)}; choose another name."
        )


def check_capacity(name: str, capacity: Capacity, base: str | None = None) -> None:
    """Refuses a new task if no weight is free; warns if some layers have no free weights.

    Args:
        name: the new task's name.
        capacity: the pack's capacity.
        base: name of the adopted task; layers that it owns completely cause no warning.

    Raises:
        ValueError: no layer has a free weight.
    """
    full = [path for path, entry in capacity.items() if entry["free"] == 0]
    nothing_left = len(full) == len(capacity)
    if not nothing_left:
        kept = {
            path for path in full if capacity[path]["owned"].get(base) == capacity[path]["total"]
        }
        full = [path for path in full if path not in kept]
    if not full:
        return
    count = len(full) - 1
    others = f" (nor have {count} other layers)" if count > 1 else ""
    others = " (nor has one other layer)" if count == 1 else others
    message = f"layer '{full[0]}' has no free weights left (capacity 0.0){others}."
    remedy = "Use a higher prune_ratio for earlier tasks or a wider trunk."
    if nothing_left:
        error = ValueError(f"Cannot add task '{name}': {message} {remedy}")
        error.add_note("Or let it override weights of other tasks: add_task(..., overlay=0.05).")
        raise error
    warnings.warn(f"Task '{name}' cannot train every layer: {message} {remedy}", stacklevel=4)


def check_number(name: str, owning: int) -> None:
    """Refuses a new task that would own weights, if the pack has the most such tasks.

    Args:
        name: the new task's name.
        owning: number of committed tasks that own weights.

    Raises:
        ValueError: there is no number left for another owner.
    """
    if owning == MAX_TASKS:
        raise ValueError(
            f"Cannot add task '{name}': {MAX_TASKS} tasks at most own weights of a pack. Let it "
            "override weights, add_task(..., overlay=0.05), or start a second pack from the trunk."
        )


def check_release(record: TaskRecord, records: Sequence[TaskRecord], open_task: str | None) -> None:
    """Refuses to release a task that owns weights if others were packed after it.

    Args:
        record: the record of the committed task to release.
        records: the records of all committed tasks.
        open_task: name of the open task, or None.

    Raises:
        ValueError: a later task that owns weights is committed, or one that sees this task.
        RuntimeError: a later task is open.
    """
    if not record.owns:
        return  # no other task sees it
    depend = [task.name for task in records if record.number in task.sees[:-1]]
    later = [
        task
        for task in records
        if task.name in depend or (task.owns and task.number > record.number)
    ]
    if later:
        why = "tasks packed after it depend on its weights" if depend else "it is not the last one"
        names = depend or [task.name for task in later]
        raise ValueError(
            f"Cannot release task '{record.name}': {why}: {listed(names)}. Release "
            f"those first, the last one first: net.release('{later[-1].name}')."
        )
    if open_task is not None:
        raise RuntimeError(
            f"Cannot release task '{record.name}': the open task '{open_task}' trains on top of "
            "its weights. Finish that with net.prune(ratio) and net.commit(), or drop it with "
            "net.discard()."
        )


def check_statistics(statistics: str) -> None:
    """Refuses an invalid `statistics`.

    Args:
        statistics: as for `PackNet.add_task`.

    Raises:
        ValueError: it is neither "task" nor "trunk".
    """
    if statistics not in ("task", "trunk"):
        raise ValueError(
            f"statistics={statistics!r} is not a source of statistics; write "
            'statistics="task" or statistics="trunk".'
        )


def check_class_count(task: str, classes: Sequence[str] | None, model: keras.Model) -> None:
    """Refuses class names that are not as many as the outputs of a task's model.

    Args:
        task: the task's name.
        classes: the names; None if there are none.
        model: the model; one with several outputs is not checked.

    Raises:
        ValueError: there are more names than outputs, or fewer.
    """
    width = model.output_shape[-1] if isinstance(model.output_shape, tuple) else None
    if classes is not None and width is not None and len(classes) != width:
        raise ValueError(
            f"Cannot add task '{task}': {len(classes)} class names for {width} outputs. Give one "
            "name per output of the head."
        )


def as_results(task: str, results: Mapping[str, Any]) -> dict[str, float]:
    """Returns the results of a task as numbers.

    Args:
        task: the task's name.
        results: accuracies by name.

    Raises:
        ValueError: they are no dict, or a result is no number; the message names it.
    """
    if not isinstance(results, Mapping):
        raise ValueError(
            f"The results of task '{task}' are a dict from name to accuracy; got {results!r}. "
            'Write {"test": 0.9}.'
        )
    found = {}
    for key, value in results.items():
        try:
            found[key] = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The result {key!r} of task '{task}' is {value!r}; results are numbers. Write "
                f"{key}=0.9."
            ) from error
    return found


def check_finite(
    task: str, weights: Mapping[str, PackedWeight], variables: Iterable[keras.Variable]
) -> None:
    """Refuses to commit a task that diverged.

    Args:
        task: the task's name.
        weights: the packed weights by path.
        variables: the other variables that the task trained.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    broken = [path for path, weight in weights.items() if not weight.claim_is_finite()]
    broken += [variable.path for variable in variables if not is_finite(variable)]
    if broken:
        raise ValueError(
            f"Cannot commit task '{task}': training diverged, weights of '{broken[0]}' are NaN or "
            "infinite. Restore earlier weights, or net.discard() the task and train it again with "
            "a lower learning rate."
        )


def check_statistics_current(model: TaskModel) -> None:
    """Warns if the open task would be committed with statistics from before its prune.

    Args:
        model: its model.
    """
    if model.seen.outdated and moves_statistics(model):
        warnings.warn(
            f"Task '{model.task_name}' is committed with moving statistics from before its last "
            "prune, which no training step and no measurement followed, so it is less accurate "
            "than it could be. Before net.commit(), retrain, or call packnet_tf.update_statistics("
            "net.open_model, images).",
            stacklevel=3,
        )


def warn_of_steps_elsewhere(task: str, closed: Iterable[TaskModel]) -> None:
    """Warns if a step that was traced for a closed task has been called in place of one's own.

    Args:
        task: name of the open task, which has had no training step.
        closed: models of committed and discarded tasks.
    """
    for model in closed:
        if model.steps_seen > 0:
            warnings.warn(
                f"Task '{task}' is committed without a training step, but the model of the closed "
                f"task '{model.task_name}' has been called in training mode: a tf.function keeps "
                "the model and the optimizer that it was traced with. Make a new step for every "
                "task, and train with net.open_model.",
                stacklevel=3,
            )
            model.batches_seen.assign(0.0)  # says it once
            return


def check_not_rolled_back(record: TaskRecord, model: TaskModel) -> None:
    """Refuses a pruned task whose weights were restored from before the prune.

    Args:
        record: the open task's record.
        model: the open task's model.

    Raises:
        RuntimeError: a callback or a checkpoint has restored them.
    """
    if model.current_phase < record.phase:
        raise rolled_back(record.name)


def rolled_back(task: str, partly: bool = False) -> RuntimeError:
    """Creates the error for committing weights from before the prune.

    Args:
        task: the task's name.
        partly: whether they are from between two prunes.
    """
    again = "some released weights are" if partly else "every weight is"
    return RuntimeError(
        f"Cannot commit task '{task}': it was pruned, but its weights have since been restored "
        f"from before the prune, so {again} claimed again. To keep the best epoch of "
        "retraining, write EarlyStopping(restore_best_weights=True, start_from_epoch=prune_epoch); "
        "to go on from the restored weights, call net.prune(ratio), retrain, and net.commit()."
    )


def check_owners(weights: Mapping[str, PackedWeight], records: Sequence[TaskRecord]) -> None:
    """Refuses owners that were restored from before a commit.

    Args:
        weights: the packed weights by path.
        records: the records of the committed tasks that own weights.

    Raises:
        RuntimeError: the owners differ from the records.
    """
    for place, (path, weight) in enumerate(weights.items()):
        try:
            owned = weight.owner_counts(len(records))[1:]
        except ValueError:
            owned = None
        if owned != [record.owned[place] for record in records]:
            raise RuntimeError(
                f"The owners of layer '{path}' are not what commit left: weights from before the "
                f"commit of task '{records[-1].name if records else '?'}' were restored over them. "
                "Restore the newer weights, or open the last saved pack with packnet_tf.load."
            )
