"""`export_onnx` and `export_all`: committed tasks as ONNX files."""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from packnet_tf.backend.types import AnyData, AnyPath, Tensors
from packnet_tf.export import manifest as manifests
from packnet_tf.export.files import beside
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.runtime.batches import check_by_task
from packnet_tf.export.task_graph import Data, TaskGraph
from packnet_tf.net import PackNet


def export_onnx(
    net: PackNet,
    task: str,
    path: AnyPath,
    *,
    samples: Tensors = None,
    calibration: AnyData = None,
    **options: Any,
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
        **options: the fields of `ExportOptions`.

    Returns:
        The largest difference to the Keras view, relative to the largest output.

    Raises:
        ValueError: there is no such task, or an option does not fit it, or the graph differs from
            Keras by more than the tolerance; then no file is left.
        OSError: the file cannot be written.

    Example:
        >>> export_onnx(net, "birds", "model_birds.onnx", samples=images[:16]) < 1e-4
        True
    """
    path, export_options = pathlib.Path(path), ExportOptions(**options)
    if path.suffix != ".onnx" or path.is_dir():
        raise ValueError(
            f"'{path}' cannot be the file: expected a name that ends in .onnx, and no folder. "
            f"Write '{path.with_suffix('')}/model.onnx', for instance."
        )
    graph = TaskGraph(net, task, export_options)
    with beside(path.parent) as folder:
        data = Data(samples, calibration)
        entry = graph.finish(graph.converted.bake(), folder / path.name, data)
    return entry["relative_difference"]


def export_all(
    net: PackNet,
    directory: AnyPath,
    *,
    samples: Mapping[str, Tensors] | None = None,
    calibration: AnyData | Mapping[str, AnyData] = None,
    evaluate: Mapping[str, Iterable] | None = None,
    tasks: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
    **options: Any,
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
    directory, export_options = pathlib.Path(directory), ExportOptions(**options)
    check_data(net, samples, evaluate)
    calibration = _per_task(net, names, calibration)
    old = manifests.read(directory)
    manifest = manifests.empty(manifests.FILES) if tasks is None else _kept(net, directory, names)
    with beside(directory) as folder:
        for name in names:
            if progress is not None:
                progress(name)
            graph = TaskGraph(net, name, export_options)
            data = Data(
                (samples or {}).get(name), calibration.get(name), (evaluate or {}).get(name)
            )
            path = folder / f"model_task{graph.number}.onnx"
            entry = graph.finish(graph.converted.bake(), path, data)
            manifest = manifests.with_task(manifest, entry)
        manifests.write(folder, manifest)
        written = [path.name for path in folder.iterdir()]
    manifests.remove_stale(directory, old, manifest, written)
    return manifest


def chosen(net: PackNet, tasks: Sequence[str] | None) -> list[str]:
    """The tasks to export.

    Raises:
        ValueError: there is none.
    """
    if isinstance(tasks, str):
        raise ValueError(f"tasks is a list of names; got {tasks!r}. Write tasks=[{tasks!r}].")
    names = list(net.tasks if tasks is None else tasks)
    if not names:
        raise ValueError(
            "There is no committed task to export. Train one and call net.commit() first."
        )
    for name in names:
        net.classes(name)  # refuses a name that is not known, before anything is done
    return names


def check_data(
    net: PackNet,
    samples: Mapping[str, Tensors] | None,
    evaluate: Mapping[str, Iterable] | None,
) -> None:
    """Refuses samples and labelled inputs that are not by the names of tasks.

    Raises:
        ValueError: they are not.
    """
    check_by_task("samples", samples, net.tasks, "images")
    check_by_task("evaluate", evaluate, net.tasks, "(images, labels)")


def _per_task(
    net: PackNet, names: Sequence[str], calibration: AnyData | Mapping[str, AnyData]
) -> dict[str, AnyData]:
    """The calibration of each task: its own, or the same for all."""
    if calibration is None:
        return {}
    if isinstance(calibration, Mapping) and set(calibration) & set(net.tasks):
        check_by_task("calibration", calibration, net.tasks, "images")
        lacking = [name for name in names if name not in calibration]
        if lacking:
            raise ValueError(
                f"calibration has nothing for the task '{lacking[0]}'. Give inputs for each task "
                "that is exported, or the same for all of them."
            )
        return dict(calibration)
    if isinstance(calibration, Iterator):  # every task goes over it again
        calibration = list(calibration)
    return dict.fromkeys(names, calibration)


def _kept(net: PackNet, directory: pathlib.Path, names: Sequence[str]) -> dict:
    """The manifest of a folder that some tasks of the pack are exported to again.

    Raises:
        ValueError: the folder holds a bundle, or another pack's tasks.
    """
    manifest = manifests.read(directory)
    others = {task["number"]: task["task"] for task in manifest["tasks"]}
    strange = [
        name
        for number, name in others.items()
        if name not in names and net.tasks[number - 1 : number] != (name,)
    ]
    bundle = manifest["kind"] == manifests.BUNDLE and bool(others)
    if bundle or strange:
        holds = "a bundle" if bundle else f"the task '{strange[0]}' of another pack"
        raise ValueError(
            f"'{directory}' holds {holds}, which files of single tasks do not go with. Name "
            "another folder, or leave tasks out to replace all of it."
        )
    return {**manifest, "kind": manifests.FILES}
