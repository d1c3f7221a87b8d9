"""`export_multitask`: several tasks in one ONNX file, which computes their stem once."""

import glob
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packnet_tf.backend.types import AnyData, AnyPath, Tensors
from packnet_tf.export.api import check_data, checked_file, chosen, classifying, per_task
from packnet_tf.export.exported import Exported, say_written
from packnet_tf.export.files import beside, remove_leftovers, save
from packnet_tf.export.manifest import describe_file
from packnet_tf.export.multitask.merge import merge
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.runtime.batches import input_batches
from packnet_tf.export.runtime.session import session
from packnet_tf.export.runtime.task_session import CHOICE, TaskSession
from packnet_tf.export.task_graph import Data, TaskGraph, measured
from packnet_tf.net import PackNet

if TYPE_CHECKING:
    from onnx import ModelProto


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
        A dict whose `tasks` list what was measured of each; it prints as a table. The file's
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
    path, export_options = checked_file(path), ExportOptions(**options)
    names = chosen(net, (classifying(net, net.tasks) or None) if tasks is None else tasks)
    check_data(net, samples, evaluate)
    import onnx

    typical = _pooled(net, per_task(net, names, calibration))
    graphs, models, entries = {}, {}, {}
    with beside(path.parent) as folder, tempfile.TemporaryDirectory() as aside:
        for name in names:
            if progress is not None:
                progress(name)
            graphs[name] = graph = TaskGraph(net, name, export_options)
            data = Data((samples or {}).get(name), typical, (evaluate or {}).get(name))
            alone = pathlib.Path(aside) / f"{name}.onnx"
            entries[name] = graph.finish(graph.converted.bake(), alone, data)
            graph.drop_model()
            models[name] = onnx.load(alone)
        written = save(_merged(models, entries), folder / path.name)
        opened = session(written[0])
        for name, graph in graphs.items():
            batches = graph.comparison.batches((samples or {}).get(name))
            found = graph.comparison.difference(TaskSession(opened, name), batches)
            if export_options.precision == "float32":
                graph.check(found)
            entries[name] |= measured(found)
        described = [describe_file(file) for file in written]
    remove_leftovers(path.parent, glob.escape(path.name), [file.name for file in written])
    whole = {**described[0], "external": described[1:]}
    say_written(whole, verbose)
    return Exported({"tasks": [{**entry, **whole} for entry in entries.values()]})


def _merged(models: dict[str, "ModelProto"], entries: Mapping[str, dict]) -> "ModelProto":
    """Returns one model for all tasks, with their facts in its metadata."""
    import onnx

    first = next(iter(models.values()))
    facts = {entry.key: entry.value for entry in first.metadata_props}
    described = {
        name: {
            "classes": entry["classes"],
            "outputs": [f"{output['name']}_{name}" for output in entry["outputs"]],
        }
        for name, entry in entries.items()
    }
    for key in ("task", "task_number", "classes"):
        facts.pop(key, None)
    proto = merge(models)
    proto.doc_string = f"tasks {', '.join(map(repr, entries))} of a PackNet"
    onnx.helper.set_model_props(proto, {**facts, CHOICE: json.dumps(described)})
    return proto


def _pooled(net: PackNet, calibration: Mapping[str, AnyData]) -> AnyData:
    """Returns the calibration inputs of all tasks, as batches; None if there are none."""
    batches = [
        batch
        for name, given in calibration.items()
        if given is not None
        for batch, _ in input_batches(net.task_model(name), given, None)
    ]
    return batches or None
