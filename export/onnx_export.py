"""`export_onnx` and `export_all`: committed tasks as ONNX files."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from packnet_tf.export import manifest as manifests
from packnet_tf.export.files import beside
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.task_graph import Data, TaskGraph
from packnet_tf.net import PackNet


def export_onnx(
    net: PackNet,
    task: str,
    path,
    *,
    samples=None,
    calibration=None,
    evaluate: Iterable | None = None,
    **options,
) -> float:
    """Writes one committed task as an ONNX file, its masked weights baked in as constants.

    No mask or owner is left in the graph; weights that are released or of another task are
    exactly 0. The file's metadata names the task and its classes. The graph is checked by
    `onnx.checker` and compared with the Keras view through onnxruntime before the file appears.

    Args:
        net: the pack.
        task: name of a committed task.
        path: the `.onnx` file to write. Weights above 2 GiB go to `NAME.onnx.data` beside it.
        samples: inputs to compare on besides random ones: an array, or a list of one array per
            input, or a dict as the model takes it, shape (n, ...).
        calibration: inputs that `precision="int8"` finds the ranges of activations on: as
            `samples`, or an iterable of batches, with labels or without. Without it ranges are
            found as the file runs.
        evaluate: labelled inputs to measure accuracy on: pairs (inputs, labels), or one of arrays;
            what is found is in `export_all`'s manifest.
        **options: the fields of `ExportOptions`.

    Returns:
        The largest difference to the Keras view, relative to the largest output.

    Raises:
        ValueError: there is no such task, or an option does not fit it, or the graph differs from
            Keras by more than the tolerance; then no file is left.
        OSError: the file cannot be written.

    Example:
        >>> export_onnx(net, "birds", "model_birds.onnx", samples=images[:16])
        2.1e-07
    """
    path, options = pathlib.Path(path), ExportOptions(**options)
    graph = TaskGraph(net, task, options)
    with beside(path.parent) as folder:
        data = Data(samples, calibration, evaluate)
        entry = graph.finish(graph.converted.bake(), folder / path.name, data)
    return entry["relative_difference"]


def export_all(
    net: PackNet,
    directory,
    *,
    samples: Mapping[str, np.ndarray] | None = None,
    calibration=None,
    evaluate: Mapping[str, Iterable] | None = None,
    tasks: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
    **options,
) -> dict:
    """Writes every committed task: `model_task1.onnx`, `model_task2.onnx`, ... and a manifest.

    Args:
        net: the pack.
        directory: folder to write to; made if need be.
        samples: by task name, inputs to compare on besides random ones.
        calibration: as for `export_onnx`, the same for all tasks or, in a dict, by task name.
        evaluate: by task name, labelled inputs to measure accuracy on.
        tasks: only these tasks; the manifest keeps the entries of the others.
        progress: called with each task's name before it is exported.
        **options: as for `export_onnx`.

    Returns:
        The manifest, as written to `manifest.json`: a dict whose `tasks` have name, number, file,
        bytes, sha256, inputs, outputs, classes, opset, preprocessing, precision, and the
        differences to Keras; see docs/export.md.

    Raises:
        ValueError: there is nothing to export, an option does not fit, or a graph differs from
            Keras.
        OSError: the folder cannot be written to.
    """
    names = chosen(net, tasks)
    directory, options = pathlib.Path(directory), ExportOptions(**options)
    manifest = manifests.read(directory)
    if tasks is None or manifest["kind"] != manifests.FILES:
        manifest = manifests.empty(manifests.FILES)
    with beside(directory) as folder:
        old = manifests.files_of(manifests.read(directory))
        for name in names:
            if progress is not None:
                progress(name)
            graph = TaskGraph(net, name, options)
            data = Data(
                by_task(samples, name), by_task(calibration, name, net), by_task(evaluate, name)
            )
            path = folder / f"model_task{graph.number}.onnx"
            entry = graph.finish(graph.converted.bake(), path, data)
            manifest = manifests.with_task(manifest, entry)
        manifests.write(folder, manifest)
    manifests.remove_all(directory, old - manifests.files_of(manifest))
    return manifest


def chosen(net: PackNet, tasks: Sequence[str] | None) -> list[str]:
    """The tasks to export.

    Raises:
        ValueError: there is none.
    """
    names = list(net.tasks if tasks is None else tasks)
    if not names:
        raise ValueError(
            "There is no committed task to export. Train one and call net.commit() first."
        )
    for name in names:
        net.classes(name)  # refuses a name that is not known, before anything is done
    return names


def by_task(data, name: str, net: PackNet | None = None):
    """What of `data` is for a task; with a pack, data that name none of its tasks are for all."""
    if data is None or (net is not None and not _names_tasks(data, net)):
        return data
    return data.get(name)


def _names_tasks(data, net: PackNet) -> bool:
    return isinstance(data, Mapping) and bool(set(data) & set(net.tasks))
