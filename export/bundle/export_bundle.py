"""`export_bundle`: many tasks in about the disk space of one."""

import pathlib
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packnet_tf.backend.text import listed
from packnet_tf.backend.types import AnyData, AnyPath, Tensors
from packnet_tf.export import manifest as manifests
from packnet_tf.export.api import check_data, chosen, per_task
from packnet_tf.export.bundle.calibrated import check_files, integer_graph
from packnet_tf.export.bundle.restored import graphs_with_references, restored_graph
from packnet_tf.export.bundle.shared_weights import (
    SharedWeights,
    another_pack,
    new_files,
    opened_files,
)
from packnet_tf.export.convert.checksum import task_digest
from packnet_tf.export.exported import Exported, say_written
from packnet_tf.export.files import beside, relocate
from packnet_tf.export.options import ExportOptions, read_options, recorded_options
from packnet_tf.export.task_graph import Data, DifferenceError, TaskGraph
from packnet_tf.net import PackNet

if TYPE_CHECKING:
    from onnx import ModelProto

UNFIT = {"tasks": "A bundle holds all tasks."}


def export_bundle(
    net: PackNet,
    directory: AnyPath,
    *,
    samples: Mapping[str, Tensors] | None = None,
    evaluate: Mapping[str, Iterable] | None = None,
    calibration: AnyData | Mapping[str, AnyData] = None,
    update_from: AnyPath | None = None,
    optimized: bool = False,
    names: str = "number",
    progress: Callable[[str], None] | None = None,
    verbose: bool = True,
    **options: Any,
) -> Exported:
    """Writes all tasks with shared weights: a small graph per task, and `shared-HASH.data`.

    `shared-HASH.data` holds the trunk's packed weights once, their owners, the overlays of tasks,
    and the constants that several graphs have in common. An owner takes 2 bits for up to four
    tasks, 4 for up to 16, and 8 beyond. HASH is a hash of these contents, so that a new file never
    comes under old graphs. The graphs, `model_task1.onnx`, ..., refer to the file as ONNX external
    data. They mask the weights with standard operators, which ONNX Runtime computes once, when it
    loads the file.

    Args:
        net: the pack.
        directory: folder to write to; created if it does not exist. An earlier export in it is
            replaced.
        samples: by task name, inputs to compare on, in addition to random ones.
        evaluate: by task name, labelled inputs to measure accuracy on.
        calibration: for "int8", typical inputs, as for `export_all`. Without them graphs compute in
            float32.
        update_from: the folder of an earlier bundle of this pack. Only new files are written: a
            graph and a `shared_taskK-HASH.data` per new task, and the manifest. Copy them over the
            earlier bundle to update it; `directory` may be the same folder.
        optimized: also write `model_task1.ort`, ...: complete networks, optimized and in ONNX
            Runtime's own format, for devices that cannot afford masking at load.
        names: as for `export_all`; graphs of the earlier bundle keep their names.
        progress: called with each task's name before it is exported.
        verbose: whether to print a line for every file once it is checked.
        **options: as for `export_onnx`, except `reduce_range`. With `precision="float16"` or
            `"int8"`, the packed weights are stored in it, int8 with a scale per output channel, and
            restored when a graph is loaded: the files are smaller, and computation and memory are
            those of float32. With `calibration` graphs compute with the stored integers.

    Returns:
        The manifest, as written to `manifest.json`: that of `export_all`, with `shared`, the
        files of shared weights, and `changed`, the files that were written. It prints as a table.

    Raises:
        ValueError: there is nothing to export, an option does not fit, a graph differs from
            Keras by more than the tolerance, or the earlier bundle is damaged or belongs to
            another pack.
        OSError: the folder cannot be written to.

    Example:
        >>> export_bundle(net, "bundle/")
        >>> model = net.add_task("cars", keras.layers.Dense(196))  # a month later
        >>> export_bundle(net, "update/", update_from="bundle/")
    """
    tasks, graph_files = chosen(net, None), manifests.file_names(names, net.tasks)
    directory, calibrated = pathlib.Path(directory), calibration is not None
    export_options = read_options(options, UNFIT, calibrated=calibrated)
    _check_options(export_options)
    check_data(net, samples, evaluate)
    old = manifests.read(directory)
    with beside(directory) as folder:
        if update_from is None:
            manifest, files = manifests.empty(manifests.BUNDLE), list[SharedWeights]()
        else:
            manifest, files = _read_earlier(net, pathlib.Path(update_from), folder)
            _check_form(export_options.precision, calibrated, files)
            _warn_of_others(export_options, manifest["tasks"])
        known = {task["task"]: task for task in manifest["tasks"]}
        new = [name for name in tasks if name not in known]
        if not new:  # check the weights all the same: the last task reads all of them
            again = TaskGraph(net, tasks[-1], recorded_options(known[tasks[-1]]))
            if calibrated:
                check_files(again, files)
            else:
                graphs_with_references([again], files, restored_graph)
        files += new_files(folder, net.state, len(known), export_options.precision, calibrated)
        typical = per_task(net, new, calibration)

        def share(graph: TaskGraph, files: list[SharedWeights]) -> "ModelProto":
            if not calibrated:
                return restored_graph(graph, files)
            return integer_graph(graph, files, graph.feeds(typical[graph.task]))

        new_graphs = _task_graphs(net, new, export_options, progress)
        graphs = graphs_with_references(new_graphs, files, share)
        names_of_files = {file.name: file.named_by_content() for file in files if file.index}
        for graph, proto in graphs:
            relocate(proto, names_of_files)
            task = graph.task
            data = Data((samples or {}).get(task), typical.get(task), (evaluate or {}).get(task))
            proto, path = graph.finalize_graph(proto), folder / graph_files[task]
            try:
                entry = graph.finish(proto, path, data, optimized=optimized)
            except DifferenceError as error:
                if update_from is None:
                    raise
                raise ValueError(
                    f"{error} Or the manifest of the bundle '{update_from}' is damaged: leave "
                    "update_from out and send everything."
                ) from error
            if calibrated:
                entry |= graph.calibrated(data)
            say_written(entry, verbose)
            manifest = manifests.with_task(manifest, entry)
        manifest["shared"] = [_describe(file) for file in files if file.index]
        for file in files:  # files of the earlier bundle are already in place
            if file.complete:
                file.path.unlink()
        manifest["changed"] = sorted([*(path.name for path in folder.iterdir()), manifests.NAME])
        manifests.write(folder, manifest)
    manifests.remove_stale(directory, old, manifest, manifest["changed"])
    for entry in manifest["shared"]:
        if entry["file"] in manifest["changed"]:
            say_written(entry, verbose)
    return Exported(manifest)


def _task_graphs(
    net: PackNet,
    names: list[str],
    options: ExportOptions,
    progress: Callable[[str], None] | None,
) -> Iterator[TaskGraph]:
    for name in names:
        if progress is not None:
            progress(name)
        yield TaskGraph(net, name, options)


def _read_earlier(
    net: PackNet, bundle: pathlib.Path, folder: pathlib.Path
) -> tuple[dict, list[SharedWeights]]:
    """Copies the shared files of an earlier bundle to `folder`; returns its manifest and them."""
    manifest = manifests.read(bundle)
    if manifest["kind"] != manifests.BUNDLE or not manifest["tasks"]:
        raise ValueError(
            f"'{bundle}' holds no bundle to update. Name a folder that export_bundle has written, "
            "or leave update_from out."
        )
    damage = manifests.damage(bundle, manifests.described_files(manifest))
    if damage:
        name, what = next(iter(damage.items()))
        raise ValueError(
            f"Cannot update the bundle '{bundle}': '{name}': {what}. Update from a whole copy, or "
            "leave update_from out and send everything."
        )
    packed = [task["task"] for task in manifest["tasks"]]
    if tuple(packed) != net.tasks[: len(packed)]:
        raise ValueError(
            f"The bundle '{bundle}' has the tasks {listed(packed)}, and the pack begins with "
            f"{listed(net.tasks[: len(packed)])}. Update from a bundle of this pack, or leave "
            "update_from out."
        )
    for entry in manifest["tasks"]:
        if entry["own_sha256"] != task_digest(net, entry["task"]):
            raise another_pack(entry["file"])
    for entry in manifest["shared"]:
        # Copied, because the ONNX checker refuses links.
        shutil.copyfile(bundle / entry["file"], folder / entry["file"])
    return manifest, opened_files(folder, manifest, net.state)


def _describe(file: SharedWeights) -> dict:
    return {
        **manifests.describe_file(file.path),
        "tasks": [file.first, file.last],
        "bits": file.bits,
        "precision": file.precision,
        "calibrated": file.calibrated,
        "tensors": file.index,
    }


def _check_options(options: ExportOptions) -> None:
    if options.reduce_range:
        raise ValueError("A bundle stores weights in all 8 bits of int8. Leave reduce_range out.")


def _warn_of_others(options: ExportOptions, entries: Sequence[Mapping]) -> None:
    """Warns where new tasks take or answer something else than those of the earlier bundle."""
    for entry in entries:
        earlier = recorded_options(entry)
        for name in ("preprocessing", "channel_order", "outputs", "batch_size"):
            ours, theirs = getattr(options, name), getattr(earlier, name)
            features = name == "outputs" and not entry["classes"]  # an adopted trunk has no others
            if ours != theirs and not features:
                warnings.warn(
                    f"The new tasks are exported with {name}={ours!r}, and '{entry['file']}' of "
                    f"the earlier bundle with {name}={theirs!r}: a program that runs both must "
                    "tell them apart. Give the update the options of the bundle.",
                    stacklevel=3,
                )
                return


def _check_form(precision: str, calibrated: bool, files: list[SharedWeights]) -> None:
    """Refuses to update a bundle in another form than its own."""
    [first, *_] = files
    if precision != first.precision:
        raise ValueError(
            f"The earlier bundle stores its weights in {first.precision}, and this update is to be "
            f"in {precision}. Write precision={first.precision!r}, or leave update_from out."
        )
    if calibrated != first.calibrated:
        ours, theirs = ("" if form else "not " for form in (calibrated, first.calibrated))
        remedy = "Give calibration" if first.calibrated else "Leave calibration out"
        raise ValueError(
            f"The earlier bundle is {theirs}calibrated, and this update is {ours}calibrated. "
            f"{remedy}, or leave update_from out."
        )
