"""`export_multitask`: several tasks in one ONNX file, which computes their stem once."""

import glob
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packnet_tf.backend.types import AnyData, AnyPath, Tensors
from packnet_tf.export.api import (
    check_data,
    checked_file,
    chosen,
    classifying,
    is_given,
    per_task,
)
from packnet_tf.export.exported import Exported, say_written
from packnet_tf.export.files import beside, remove_leftovers, save
from packnet_tf.export.manifest import describe_file
from packnet_tf.export.multitask.merge import merge
from packnet_tf.export.options import read_options
from packnet_tf.export.runtime.batches import input_batches
from packnet_tf.export.runtime.session import session
from packnet_tf.export.runtime.task_session import TASKS_INPUT, TaskSession
from packnet_tf.export.task_graph import Data, TaskGraph, described
from packnet_tf.net import PackNet

if TYPE_CHECKING:
    from onnx import ModelProto

UNFIT = {"names": "A multitask file has the name that path gives it."}


def export_multitask(
    net: PackNet,
    path: AnyPath,
    tasks: Sequence[str] | None = None,
    *,
    samples: Mapping[str, Tensors] | None = None,
    calibration: AnyData | Mapping[str, AnyData] = None,
    evaluate: Mapping[str, Iterable] | None = None,
    progress: Callable[[str], None] | None = None,
    verbose: bool = True,
    **options: Any,
) -> Exported:
    """Writes several tasks to one ONNX file, which answers for all of them, or for some.

    What the tasks compute alike is computed once: the stem, if the pack has one (see `PackNet`),
    and the preprocessing. Each task adds an output `logits_TASK` (or `probabilities_TASK`, ...). An
    input `tasks`, bool (tasks,), says which tasks are to answer; the others cost no time, and their
    outputs have no rows. Without it, all answer.

    Args:
        net: the pack.
        path: the `.onnx` file to write.
        tasks: names of the tasks, in the order of the input `tasks`; default all, except for an
            adopted trunk without a head.
        samples: as for `export_all`.
        calibration: as for `export_all`. For `precision="int8"` the ranges are those of all
            inputs that are given, so that all tasks compute the same stem.
        evaluate: as for `export_all`.
        progress: called with each task's name before it is exported.
        verbose: whether to print a line when the file is written.
        **options: as for `export_onnx`.

    Returns:
        A dict whose `tasks` list the inputs of the file, the outputs of each task, and what was
        measured of them; it prints as a table. The file's
        metadata `tasks` are a JSON dict by task: `classes`, and the names of its `outputs`.

    Raises:
        ValueError: there is nothing to export, an option does not fit, or the file differs from
            Keras by more than the tolerance. No file is written.
        OSError: the file cannot be written.

    Example:
        >>> import onnxruntime
        >>> exported = export_multitask(net, "all.onnx", verbose=False)
        >>> session = onnxruntime.InferenceSession("all.onnx")
        >>> [logits] = session.run(["logits_birds"], {"image": images})
    """
    path = checked_file(path)
    names = chosen(net, default_tasks(net) if tasks is None else tasks)
    check_data(net, samples, evaluate)
    calibration = per_task(net, names, calibration)
    export_options = read_options(options, UNFIT, calibrated=is_given(calibration))
    typical = _pooled(net, calibration)
    graphs, models, data = {}, {}, {}
    for name in names:
        if progress is not None:
            progress(name)
        graphs[name] = graph = TaskGraph(net, name, export_options)
        data[name] = Data((samples or {}).get(name), typical, (evaluate or {}).get(name))
        models[name] = graph.lowered(graph.converted.bake(), data[name])
        graph.drop_model()
    merged, outputs = _merged(net, models)
    whole = described(merged)
    with beside(path.parent) as folder:
        written = save(merged, folder / path.name)
        opened = session(written[0])
        entries = [
            {
                **graph.facts(),
                "inputs": whole["inputs"],
                "outputs": [each for each in whole["outputs"] if each["name"] in outputs[name]],
                **graph.measured(TaskSession(opened, name), data[name]),
                **graph.calibrated(data[name]),
            }
            for name, graph in graphs.items()
        ]
        files = [describe_file(file) for file in written]
    remove_leftovers(path.parent, glob.escape(path.name), [file.name for file in written])
    file = {**files[0], "external": files[1:]}
    say_written(file, verbose)
    return Exported({"tasks": [{**entry, **file} for entry in entries]})


def default_tasks(net: PackNet) -> list[str]:
    """Returns the tasks of a file by default: all but an adopted trunk without a head.

    If there is nothing else, it is that trunk.
    """
    return classifying(net, net.tasks) or list(net.tasks)


def _merged(
    net: PackNet, models: Mapping[str, "ModelProto"]
) -> tuple["ModelProto", dict[str, list[str]]]:
    """Returns one model for all tasks, which describes them in its metadata; outputs by task."""
    import onnx

    first = next(iter(models.values()))
    facts = {entry.key: entry.value for entry in first.metadata_props}
    outputs = {
        name: [f"{entry.name}_{name}" for entry in model.graph.output]
        for name, model in models.items()
    }
    tasks = {name: {"classes": net.classes(name), "outputs": outputs[name]} for name in models}
    for key in ("task", "task_number", "classes"):
        facts.pop(key, None)
    proto = merge(models)
    proto.doc_string = f"tasks {', '.join(map(repr, models))} of a PackNet"
    onnx.helper.set_model_props(proto, {**facts, TASKS_INPUT: json.dumps(tasks)})
    return proto, outputs


def _pooled(net: PackNet, calibration: Mapping[str, AnyData]) -> AnyData:
    """Returns the calibration inputs of all tasks, as batches; None if no task has any.

    Inputs that are given for several tasks count once.
    """
    distinct = {id(given): (name, given) for name, given in calibration.items()}
    if not is_given(calibration):
        return None
    return [
        batch
        for name, given in distinct.values()
        if given is not None
        for batch, _ in input_batches(net.task_model(name), given, None)
    ]
