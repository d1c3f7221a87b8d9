"""Checks of trunks, heads and names, and of the state of a pack."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from packnet_tf.backend.keras_internals import all_layers, has_graph
from packnet_tf.backend.text import listed
from packnet_tf.packing.layers import Packed, plain_class
from packnet_tf.packing.policy import Policy
from packnet_tf.packing.weight import MAX_TASKS, PackedWeight, is_finite
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.tasks.integrity.names import check_portable
from packnet_tf.tasks.records import TaskRecord
from packnet_tf.tasks.task_model import TaskModel


def check_trunk(trunk: object) -> None:
    """Refuses a trunk that cannot be packed.

    Args:
        trunk: the user's value.

    Raises:
        ValueError: the message says why, and what to do.
    """
    if any(isinstance(layer, (Packed, TaskModel)) for layer in _layers_of(trunk)):
        raise ValueError(
            "Cannot pack this trunk: it is packed already. Add tasks to the PackNet it belongs "
            "to, or pack the plain model that net.unpack(task) returns."
        )
    if not isinstance(trunk, keras.Model):
        raise ValueError(
            f"Cannot pack {trunk!r}: expected a Keras model. Write PackNet(keras.Sequential("
            "[keras.Input(shape), ...])) or pass a keras.applications model."
        )
    if not has_graph(trunk):
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is a subclassed model ({type(trunk).__name__}), "
            "whose graph only its own code knows. Build it as a Functional or Sequential model; a "
            "subclassed layer inside one is fine."
        )
    _check_layers(trunk)
    _check_graphs(trunk)
    if not trunk.built:
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is not built yet. Give it an input shape, "
            "keras.Sequential([keras.Input((96, 96, 3)), ...]), or call it once on data."
        )


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


def nothing_to_pack(trunk: keras.Model, policy: Policy) -> ValueError:
    """Creates the error for a trunk without a layer to pack.

    Args:
        trunk: a built model.
        policy: the policy of the pack.
    """
    tables = [x for x in all_layers(trunk) if isinstance(x, keras.layers.Embedding)]
    if policy.stem is not None:
        remedy = (
            f"The stem, all layers up to '{policy.stem}', is not packed; name an earlier layer."
        )
    elif tables and policy.embeddings != "packed":
        remedy = f"To pack its embedding '{tables[0].name}', write embeddings=\"packed\"."
    else:
        remedy = (
            "Register a layer of your own with packnet_tf.register_packed; if the trunk is frozen, "
            "set trunk.trainable = True."
        )
    return ValueError(
        f"Cannot pack trunk '{trunk.name}': it has no trainable layer that can be packed "
        f"(Dense or a convolution, say). {remedy}"
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


def check_head(task: str, head: object) -> None:
    """Refuses a head that a task cannot have.

    Args:
        task: the task's name.
        head: the user's value.

    Raises:
        ValueError: the message says why, and what to do.
    """
    if not isinstance(head, keras.layers.Layer):
        raise ValueError(
            f"Cannot add task '{task}': its head must be a Keras layer or model, for instance "
            f"keras.layers.Dense(10); got {head!r}."
        )
    if isinstance(head, keras.Model) and not has_graph(head):
        raise ValueError(
            f"Cannot add task '{task}': its head is a subclassed model ({type(head).__name__}), "
            "which cannot be copied. Build it as a Functional or Sequential model, or as a layer."
        )
    _check_layers(head)
    for part in all_layers(head):
        _refuse_own_call(part, f"Cannot add task '{task}' with model '{part.name}' as its head")


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


def rolled_back(task: str) -> RuntimeError:
    """Creates the error for committing weights from before the prune.

    Args:
        task: the task's name.
    """
    return RuntimeError(
        f"Cannot commit task '{task}': it was pruned, but its weights have since been restored "
        "from before the prune, so every weight is claimed again. To keep the best epoch of "
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


def _check_layers(model: keras.layers.Layer) -> None:
    """Refuses or warns about layers with which a saved pack could not be read."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Lambda):
            _check_lambda(layer)
        cls = plain_class(layer)
        known = cls.__module__.partition(".")[0] in ("keras", "keras_hub", "packnet_tf")
        if not known and keras.saving.get_registered_name(cls) == cls.__name__:
            warnings.warn(
                f"Layer '{layer.name}' is a {cls.__name__}, which is not registered with Keras: "
                "a pack with it can be saved but not loaded. Decorate the class with "
                "@keras.saving.register_keras_serializable().",
                stacklevel=4,
            )


def _check_graphs(trunk: keras.Model) -> None:
    """Refuses models that override `call`; warns about layers that are part of two graphs."""
    graphs: dict[int, str] = {}
    for part in all_layers(trunk):
        if not (isinstance(part, keras.Model) and has_graph(part)):
            continue
        _refuse_own_call(part, f"Cannot pack model '{part.name}'")
        for layer in part.layers:
            if layer.weights and graphs.setdefault(id(layer), part.name) != part.name:
                warnings.warn(
                    f"Layer '{layer.name}' is part of two models, '{graphs[id(layer)]}' and "
                    f"'{part.name}': Keras saves such a trunk but cannot load it, and the same "
                    "holds for a pack with it. Export its tasks, or build the trunk as one model.",
                    stacklevel=4,
                )


def _refuse_own_call(part: keras.layers.Layer, sentence: str) -> None:
    if not (isinstance(part, keras.Model) and has_graph(part)):
        return
    author = next(cls for cls in type(part).__mro__ if "call" in vars(cls))
    if not author.__module__.startswith("keras."):
        raise ValueError(
            f"{sentence}: its class {author.__name__} has a call() of its own, which a copy of its "
            "graph would not run. Put what it does into the graph, or into a layer."
        )


def _check_lambda(layer: keras.layers.Lambda) -> None:
    try:
        type(layer).from_config(layer.get_config())
    except ValueError as error:
        raise ValueError(
            f"Cannot pack layer '{layer.name}': it is a Lambda around a Python function, which no "
            "file can hold safely. Write it with keras.ops in the graph, or as a layer class of "
            "your own, registered with keras.saving.register_keras_serializable."
        ) from error


def _layers_of(trunk: object) -> list[keras.layers.Layer]:
    return all_layers(trunk) if isinstance(trunk, keras.layers.Layer) else []
