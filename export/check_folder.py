"""`verify`: checks a folder of exported files against its pack."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np

from packnet_tf.backend.text import listed, quoted
from packnet_tf.backend.types import AnyPath, Tensors
from packnet_tf.export import manifest as manifests
from packnet_tf.export.bundle.calibrated import shared_kernels
from packnet_tf.export.bundle.kernels import overlay_of
from packnet_tf.export.bundle.shared_weights import SharedWeights, opened_files, shared_owners
from packnet_tf.export.bundle.stored import decode, encode, precisions_of, seen_weights
from packnet_tf.export.graph.constants import calculated_constants, digest
from packnet_tf.export.options import LIMITS, ExportOptions, recorded_options
from packnet_tf.export.runtime.batches import check_by_task
from packnet_tf.export.runtime.session import class_names, session
from packnet_tf.export.task_graph import TaskGraph, described
from packnet_tf.net import PackNet

if TYPE_CHECKING:
    from onnx import ModelProto

WRONG_WEIGHT = "the weight '{}' that it reads and masks is not what the pack gives for this task"


@dataclasses.dataclass
class Verdict:
    """The result of checking one task's file.

    Attributes:
        task, file: names of the task and of its file.
        problems: a sentence per problem; empty if there is none.
        relative_difference: the largest difference from Keras, relative to the largest output;
            None if the file was not run.
        compared_inputs: the number of inputs that were compared.
        zeros: the number of checked weights that must be 0. None for a bundle, where the masked
            weights are checked instead, and for int8, which stores them otherwise.
    """

    task: str
    file: str
    problems: list[str] = dataclasses.field(default_factory=list)
    relative_difference: float | None = None
    compared_inputs: int = 0
    zeros: int | None = None


def verify(
    net: PackNet,
    directory: AnyPath,
    *,
    samples: Mapping[str, Tensors] | None = None,
    tolerance: float = ExportOptions.tolerance,
    progress: Callable[[str], None] | None = None,
) -> list[Verdict]:
    """Checks every file of a manifest against the pack.

    What is right comes from the pack and from the arguments: the manifest is checked too. It checks
    that

    - all files exist and have the size and the SHA-256 of the manifest,
    - each is a valid ONNX model of its task and classes, with the operator set, inputs and outputs
      of the manifest,
    - weights that the task does not see (free weights, those of later tasks) are exactly 0,
    - its outputs on random inputs and on samples differ from Keras by no more than the tolerance;
      those of float16 and int8 files by 1.5 times the manifest's difference more, which counts up
      to `LIMITS`.

    Of a router, it checks the files and the numbers of the tasks.

    Args:
        net: the pack.
        directory: folder that `export_all` or `export_bundle` has written.
        samples: by task name, inputs to compare on, in addition to random ones.
        tolerance: largest accepted difference, relative to the largest output; give the one that
            was accepted at the export, if that was larger.
        progress: called with each task's name before it is checked.

    Returns:
        A `Verdict` per task of the manifest, and one for a router.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: the manifest is damaged, or lists no task.

    Example:
        >>> model = net.add_task("birds", head)
        >>> net.commit()
        >>> manifest = packnet_tf.export.export_all(net, "onnx/")
        >>> [verdict.problems for verdict in verify(net, "onnx/")]
        [[]]
    """
    directory = pathlib.Path(directory)
    if not (directory / manifests.NAME).exists():
        raise FileNotFoundError(
            f"'{directory}' has no {manifests.NAME}. Name a folder that export_all or "
            "export_bundle has written."
        )
    manifest = manifests.read(directory)
    if not manifest["tasks"]:
        raise ValueError(f"The manifest of '{directory}' lists no task. Export again.")
    check_by_task("samples", samples, net.tasks, "images")
    damage = manifests.damage(directory, manifests.described_files(manifest))
    shared = {file["file"] for file in manifest.get("shared", ())}
    verdicts = []
    for entry in manifest["tasks"]:
        if progress is not None:
            progress(entry["task"])
        verdict = Verdict(entry["task"], entry["file"])
        needed = {entry["file"], *(other["file"] for other in entry["external"])} | shared
        verdict.problems += [f"'{name}': {damage[name]}" for name in sorted(needed & set(damage))]
        if not verdict.problems:
            given = (samples or {}).get(entry["task"])
            _check(net, directory, manifest, entry, given, tolerance, verdict)
        verdicts.append(verdict)
    if "router" in manifest:
        verdicts.append(_router_verdict(net, manifest["router"], damage))
    return verdicts


def _router_verdict(net: PackNet, entry: dict, damage: Mapping[str, str]) -> Verdict:
    """Checks the files of a router and the numbers of its tasks; the pack lacks the rest."""
    verdict = Verdict("router", entry["file"])
    files = {entry["file"], *(other["file"] for other in entry["external"])}
    verdict.problems += [f"'{name}': {damage[name]}" for name in sorted(files & set(damage))]
    for task, number in entry["tasks"].items():
        if net.tasks[number - 1 : number] != (task,):
            verdict.problems.append(f"the pack's task number {number} is not '{task}'")
    return verdict


def _check(
    net: PackNet,
    directory: pathlib.Path,
    manifest: dict,
    entry: dict,
    samples: Tensors,
    tolerance: float,
    verdict: Verdict,
) -> None:
    import onnx

    task, path = entry["task"], directory / entry["file"]
    if task not in net.tasks:
        known = listed(net.tasks) or "none"
        verdict.problems.append(f"the pack has no task '{task}'; its tasks: {known}")
        return
    try:
        onnx.checker.check_model(str(path))
        proto = onnx.load(str(path), load_external_data=False)
        onnx_session = session(path)
    except Exception as error:  # protobuf, onnx and onnxruntime share no base class
        verdict.problems.append(f"it is no model that can be loaded: {quoted(error)}")
        return
    facts = {prop.key: prop.value for prop in proto.metadata_props}
    opsets = {used.domain: used.version for used in proto.opset_import}
    says = {
        **described(proto),
        "task": facts.get("task"),
        "number": int(number) if (number := facts.get("task_number", "0")).isdecimal() else number,
        "opset": opsets.get(""),
    }
    ours = {"task": task, "number": net.tasks.index(task) + 1, "opset": entry["opset"]}
    for key in ("inputs", "outputs"):
        ours[key] = entry[key]
    verdict.problems += [
        f"its {key}: {quoted(says[key])}; expected {quoted(ours[key])}"
        for key in says
        if says[key] != ours[key]
    ]
    try:
        named = class_names(facts, path)
    except ValueError as error:
        verdict.problems.append(str(error))
        return
    for where, classes in {
        "its classes": named,
        "the manifest's classes": entry["classes"],
    }.items():
        if classes != (net.classes(task) or None):
            verdict.problems.append(
                f"{where}: {quoted(classes)}; the pack's are {quoted(net.classes(task))}"
            )
    if verdict.problems:
        return
    options = recorded_options(entry)
    graph = TaskGraph(net, task, options)
    if manifest["kind"] == manifests.BUNDLE:
        if manifest["shared"][0].get("calibrated", False):
            files = opened_files(directory, manifest, net.state)
            _check_integers(path, graph, files, entry.get("calibrated", False), verdict)
        else:
            owners = shared_owners(directory, manifest, net.state)
            _check_shared(path, graph, [(part.start, part.stop - 1) for part in owners], verdict)
    elif options.precision != "int8":
        verdict.zeros = _zeros(onnx.load(str(path)), graph, verdict)
    compared = graph.comparison
    try:
        # The first batch is the one that the export compared. On others float16 and int8 files
        # may differ by any amount, so that difference is reported but not judged.
        batches = compared.batches(samples)
        found = judged = compared.difference(onnx_session, batches)
        if options.precision != "float32":
            judged = compared.difference(onnx_session, batches[:1])
    except ValueError as error:
        verdict.problems.append(str(error))
        return
    except Exception as error:  # onnxruntime's exception classes are not public
        verdict.problems.append(f"it does not take what the pack does: {quoted(error)}")
        return
    verdict.relative_difference, verdict.compared_inputs = found.relative, found.samples
    allowed = tolerance
    if options.precision != "float32":  # other processors round differently
        allowed += min(1.5 * entry["relative_difference"], LIMITS[options.precision])
    if not judged.relative <= allowed:
        verdict.problems.append(
            f"its answers differ from Keras by {judged.relative:.1e} of the largest, more than "
            f"{allowed:.1e}"
        )


def _check_shared(
    path: pathlib.Path, graph: TaskGraph, parts: list[tuple[int, int]], verdict: Verdict
) -> None:
    """Checks that the masked weights in a bundle's graph are those that the task sees."""
    found = {digest(array) for array in calculated_constants(path)}
    read = [
        (name, layout, graph.packed[layout.source])
        for name, layout in graph.converted.layouts.items()
        if layout.source in graph.packed
    ]
    sizes = [math.prod(weight.packed.shape) for _, _, weight in read]
    kinds = precisions_of(sizes, graph.options.precision)
    for (name, layout, weight), kind in zip(read, kinds, strict=True):
        owner = layout(keras.ops.convert_to_numpy(weight.owner))
        values = layout(keras.ops.convert_to_numpy(weight.packed).astype(np.float32, copy=False))
        kernel = seen_weights(values, owner, graph.sees, parts, kind)
        if graph.overlaid:
            own, here = overlay_of(weight, layout)
            own = decode(*encode(np.where(here, own, np.float32(0)), kind, here))
            kernel = np.where(here, own, kernel)
        if digest(kernel) not in found:
            verdict.problems.append(WRONG_WEIGHT.format(name))


def _check_integers(
    path: pathlib.Path,
    graph: TaskGraph,
    files: list[SharedWeights],
    calibrated: bool,
    verdict: Verdict,
) -> None:
    """Checks that a graph of a calibrated bundle computes the integers that the task sees."""
    found = calculated_constants(path)
    for name, each in shared_kernels(graph, files, calibrated).items():
        if not any(each.is_restored(array) for array in found):
            verdict.problems.append(WRONG_WEIGHT.format(name))


def _zeros(proto: "ModelProto", graph: TaskGraph, verdict: Verdict) -> int:
    """Checks that weights which a task does not see are 0; returns their number."""
    from onnx import numpy_helper

    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    count = 0
    for name, layout in graph.converted.layouts.items():
        weight = graph.packed.get(layout.source)
        if weight is None:
            continue
        if name not in held:
            verdict.problems.append(f"it lacks the weight '{name}'")
            continue
        unseen = ~layout(weight.seen(graph.sees))
        wrong = int(np.count_nonzero(numpy_helper.to_array(held[name])[unseen]))
        if wrong:
            verdict.problems.append(
                f"{wrong} weights of '{name}' are not 0, though the task does not see them"
            )
        count += int(unseen.sum())
    return count
