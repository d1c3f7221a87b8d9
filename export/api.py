"""`export_onnx` and `export_all`: committed tasks as ONNX files."""

import glob
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from packnet_tf.backend.types import AnyData, AnyPath, Tensors
from packnet_tf.export import manifest as manifests
from packnet_tf.export.convert.checksum import foreign_tasks
from packnet_tf.export.exported import Exported, say_written
from packnet_tf.export.files import beside, remove_leftovers
from packnet_tf.export.options import read_options
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
    verbose: bool = True,
    **options: Any,
) -> float:
    """Writes one committed task to an ONNX file, with its masked weights baked in as constants.

    The graph holds no masks and no owners. Weights that the task does not see are exactly 0. The
    file's metadata names the task and its classes. Before the file is put in its place,
    `onnx.checker` checks the graph, and onnxruntime's outputs are compared with those of the Keras
    view.

    Args:
        net: the pack.
        task: name of a committed task.
        path: the `.onnx` file to write. If the weights exceed 2 GiB, they go to
            `NAME.onnx-HASH.data` beside it.
        samples: inputs to compare on, in addition to random ones: an array (n, ...), a list of one
            array per input, or a dict by input name.
        calibration: inputs for calibrating the activation ranges of `precision="int8"`: as
            `samples`, or an iterable of batches, with or without labels. Without it, the ranges
            are computed at run time.
        verbose: whether to print a line when the file is written.
        **options: the fields of `ExportOptions`.

    Returns:
        The largest difference from the Keras view, relative to the largest output.

    Raises:
        ValueError: there is no such task, an option does not fit it, or the graph differs from
            Keras by more than the tolerance. No file is written.
        OSError: the file cannot be written.

    Example:
        >>> difference = export_onnx(net, "birds", "model_birds.onnx", samples=images[:16])
        >>> difference < 1e-4
        True
    """
    path = checked_file(path)
    export_options = read_options(options, calibrated=calibration is not None)
    graph = TaskGraph(net, task, export_options)
    with beside(path.parent) as folder:
        entry = graph.export(folder / path.name, Data(samples, calibration))
    kept = [other["file"] for other in entry["external"]]
    remove_leftovers(path.parent, glob.escape(path.name), kept)
    say_written(entry, verbose)
    return entry["relative_difference"]


def export_all(
    net: PackNet,
    directory: AnyPath,
    *,
    samples: Mapping[str, Tensors] | None = None,
    calibration: AnyData | Mapping[str, AnyData] = None,
    evaluate: Mapping[str, Iterable] | None = None,
    tasks: Sequence[str] | None = None,
    names: str = "number",
    progress: Callable[[str], None] | None = None,
    verbose: bool = True,
    **options: Any,
) -> Exported:
    """Writes every committed task to `model_task1.onnx`, `model_task2.onnx`, ... and a manifest.

    Args:
        net: the pack.
        directory: folder to write to; created if it does not exist.
        samples: by task name, inputs to compare on, in addition to random ones.
        calibration: as for `export_onnx`: the same for all tasks, or a dict by task name, with
            None for tasks whose ranges are computed at run time.
        evaluate: by task name, labelled inputs to measure accuracy on.
        tasks: names of the tasks to export; default all. The manifest keeps the entries of the
            others.
        names: "number" names files by the order of packing; "task" by the task, `birds.onnx`.
        progress: called with each task's name before it is exported.
        verbose: whether to print a line for every file once it is checked.
        **options: as for `export_onnx`.

    Returns:
        The manifest, as written to `manifest.json`: a dict whose `tasks` list the name, number,
        file, bytes, sha256, inputs, outputs, classes, opset, preprocessing, precision and
        differences from Keras of each task; see docs/how_it_works/exports.md. It prints as a table.

    Raises:
        ValueError: there is nothing to export, an option does not fit, or a graph differs from
            Keras by more than the tolerance.
        OSError: the folder cannot be written to.

    Example:
        >>> model = net.add_task("birds", head)
        >>> net.commit()
        >>> exported = export_all(net, "onnx/", verbose=False)
        >>> [task["file"] for task in exported["tasks"]]
        ['model_task1.onnx']
    """
    exported, files = chosen(net, tasks), manifests.file_names(names, net.tasks)
    directory = pathlib.Path(directory)
    check_data(net, samples, evaluate)
    calibration = per_task(net, exported, calibration)
    export_options = read_options(options, calibrated=is_given(calibration))
    old = manifests.read(directory)
    manifest = (
        manifests.empty(manifests.FILES)
        if tasks is None
        else _manifest_to_update(net, directory, exported)
    )
    with beside(directory) as folder:
        for name in exported:
            if progress is not None:
                progress(name)
            graph = TaskGraph(net, name, export_options)
            data = Data(
                (samples or {}).get(name), calibration.get(name), (evaluate or {}).get(name)
            )
            entry = graph.export(folder / files[name], data)
            say_written(entry, verbose)
            manifest = manifests.with_task(manifest, entry)
        manifests.write(folder, manifest)
        written = [path.name for path in folder.iterdir()]
    manifests.remove_stale(directory, old, manifest, written)
    return Exported(manifest)


def checked_file(path: AnyPath) -> pathlib.Path:
    """Returns the path of a file to write.

    Raises:
        ValueError: it does not end in `.onnx`, or is a folder.
    """
    path = pathlib.Path(path)
    if path.suffix != ".onnx" or path.is_dir():
        raise ValueError(
            f"'{path}' cannot be the file: expected a name that ends in .onnx, and no folder. "
            f"Write '{path.with_suffix('')}/model.onnx', for instance."
        )
    return path


def chosen(net: PackNet, tasks: Sequence[str] | None) -> list[str]:
    """Returns the names of the tasks to export.

    Raises:
        ValueError: there is no committed task, or a name is unknown or there twice.
    """
    if isinstance(tasks, str):
        raise ValueError(f"tasks is a list of names; got {tasks!r}. Write tasks=[{tasks!r}].")
    names = list(net.tasks if tasks is None else tasks)
    if not names:
        raise ValueError(
            "There is no committed task to export. Train one and call net.commit() first."
        )
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"tasks names '{name}' twice. Name each task once.")
        net.classes(name)  # raises for an unknown name, before any work is done
    return names


def classifying(net: PackNet, tasks: Iterable[str]) -> list[str]:
    """Returns the tasks that give classes: all but a base without a head, which gives features."""
    return [task for task in tasks if task != net.base or _has_head(net, task)]


def _has_head(net: PackNet, task: str) -> bool:
    return bool(net.classes(task) or net.state.record(task).head_size)


def check_data(
    net: PackNet,
    samples: Mapping[str, Tensors] | None,
    evaluate: Mapping[str, Iterable] | None,
) -> None:
    """Checks that samples and labelled inputs are dicts by task name.

    Raises:
        ValueError: one is not a dict, or has a key that is not a task.
    """
    check_by_task("samples", samples, net.tasks, "images")
    check_by_task("evaluate", evaluate, net.tasks, "(images, labels)")


def per_task(
    net: PackNet, names: Sequence[str], calibration: AnyData | Mapping[str, AnyData]
) -> dict[str, AnyData]:
    """Returns the calibration inputs by task name."""
    if calibration is None:
        return {}
    if isinstance(calibration, Mapping) and set(calibration) & set(net.tasks):
        check_by_task("calibration", calibration, net.tasks, "images")
        lacking = [name for name in names if name not in calibration]
        if lacking:
            raise ValueError(
                f"calibration has nothing for the task '{lacking[0]}'. Give inputs for each task "
                "that is exported, or None for ranges computed at run time."
            )
        return dict(calibration)
    if isinstance(calibration, Iterator):  # every task iterates over it
        calibration = list(calibration)
    return dict.fromkeys(names, calibration)


def is_given(calibration: Mapping[str, AnyData]) -> bool:
    """Whether there are calibration inputs for a task."""
    return any(given is not None for given in calibration.values())


def _manifest_to_update(net: PackNet, directory: pathlib.Path, names: Sequence[str]) -> dict:
    """Returns the manifest of a folder in which some tasks are to be replaced.

    A router leaves it that knew a task which the pack has packed again.

    Raises:
        ValueError: the folder holds a bundle, or tasks of another pack.
    """
    manifest = manifests.read(directory)
    foreign = foreign_tasks(net, manifest["tasks"])
    strange = [name for name in foreign if name not in names]
    bundle = manifest["kind"] == manifests.BUNDLE and bool(manifest["tasks"])
    if bundle or strange:
        holds = (
            "a bundle"
            if bundle
            else (f"the task '{strange[0]}' of another pack, or of another state of this one")
        )
        raise ValueError(
            f"'{directory}' holds {holds}, which files of single tasks do not go with. Name "
            "another folder, or leave tasks out to replace all of it."
        )
    if not set(foreign).isdisjoint(manifest.get("router", {}).get("tasks", ())):
        del manifest["router"]
    return {**manifest, "kind": manifests.FILES}
