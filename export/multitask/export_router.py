"""`export_router`: a file that tells which task's file an image is for."""

import glob
import json
import pathlib
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from packnet_tf.backend.types import AnyPath, Tensors
from packnet_tf.export import manifest as manifests
from packnet_tf.export.api import checked_file
from packnet_tf.export.convert.checksum import foreign_tasks
from packnet_tf.export.convert.supported import check_inputs, check_state, computed, named
from packnet_tf.export.convert.to_onnx import input_names, to_onnx
from packnet_tf.export.exported import say_written
from packnet_tf.export.files import beside, remove_leftovers, save
from packnet_tf.export.graph.preprocessing import Pixels, noted_range
from packnet_tf.export.multitask.routing_graph import NONE, OUTPUTS, append_router
from packnet_tf.export.options import FACTS, ExportOptions, read_options
from packnet_tf.export.runtime.comparison import Comparison
from packnet_tf.export.runtime.session import session
from packnet_tf.export.task_graph import described
from packnet_tf.net import PackNet
from packnet_tf.routing.gaussians import log_likelihoods, scores_of
from packnet_tf.routing.router import TaskRouter

if TYPE_CHECKING:
    from onnx import ModelProto

WHY = "A router gives `task` and `scores`, in float32."
UNFIT = dict.fromkeys(("softmax", "outputs", "top_k", "precision", "reduce_range"), WHY)
ROUTER = "router"  # the entry of the manifest, and the metadata of the file


def export_router(
    router: TaskRouter,
    path: AnyPath,
    *,
    samples: Tensors = None,
    verbose: bool = True,
    **options: Any,
) -> float:
    """Writes a router to an ONNX file, which tells which task's file an image is for.

    The file takes the inputs that the tasks' files take with the same options. Its outputs are
    `task`, int64 (batch,): the number of the task in the order of packing, as in `model_task3.onnx`
    and in the manifest, or -1 for none of them; and `scores`, float32 (batch, tasks), see
    `TaskRouter.scores`. Its metadata `router` are a JSON dict from each task of `scores` to its
    number. Before the file is put in its place it is compared with the router. If there is a
    manifest beside it, it is listed there.

    Args:
        router: the router.
        path: the `.onnx` file to write.
        samples: inputs to compare on, in addition to random ones.
        verbose: whether to print a line when the file is written.
        **options: as for `export_onnx`, without those about outputs and precision.

    Returns:
        The largest difference of the scores from the router's, relative to the largest score.

    Raises:
        ValueError: the router knows no task; an option does not fit; the manifest is of another
            pack, or lists the file as a task's; or the file differs from the router by more than
            the tolerance. No file is written.
        OSError: the file cannot be written.

    Example:
        >>> router = packnet_tf.TaskRouter.fit(net, {"birds": images})
        >>> difference = export_router(router, "router.onnx", verbose=False)
        >>> import onnxruntime
        >>> session = onnxruntime.InferenceSession("router.onnx")
        >>> task, scores = session.run(["task", "scores"], {"image": images})
    """
    import onnx

    path, settings = checked_file(path), read_options(options, UNFIT)
    net = router.net
    numbers = task_numbers(router)
    manifest = _manifest_beside(path, net)
    pixels = None
    with named("the router"):
        if settings.preprocessing == "uint8":
            inputs = keras.tree.flatten(router.features.inputs)
            pixels = Pixels.of(inputs, net.notes.get("pixel_range"), settings)
        proto = _features(router.features, settings)
    append_router(proto, router.gaussians, list(numbers.values()))
    if pixels is not None:
        pixels.prepend(proto)
    notes = {**net.notes, **(settings.metadata or {})}
    facts = {str(key): str(text) for key, text in notes.items() if key not in (*FACTS, ROUTER)}
    if pixels is not None:
        facts["channel_order"] = settings.channel_order
    facts[ROUTER] = json.dumps(numbers)
    proto.producer_name = "packnet_tf"
    proto.doc_string = f"router between the tasks {', '.join(map(repr, numbers))} of a PackNet"
    onnx.helper.set_model_props(proto, facts)
    with beside(path.parent) as folder:
        written = save(proto, folder / path.name)
        with computed("the router", router.features):
            difference = compare(router, written[0], settings, pixels, samples)
        files = [manifests.describe_file(file) for file in written]
        entry = {
            **files[0],
            "external": files[1:],
            "tasks": numbers,
            **described(proto),
            "opset": settings.opset,
            "preprocessing": "trained" if pixels is None else pixels.facts(),
            "options": settings.changed(),
            "relative_difference": difference,
            "made_by": manifests.made_by(),
        }
        if manifest is not None:
            manifests.write(folder, {**manifest, ROUTER: entry})
    remove_leftovers(path.parent, glob.escape(path.name), [file["file"] for file in files[1:]])
    say_written(entry, verbose)
    return difference


def _features(model: keras.Model, options: ExportOptions) -> "ModelProto":
    """Converts the part of the trunk that a router looks at."""
    assert options.opset is not None  # the options have chosen one
    names = input_names(model, options.input_names)
    for name in names:
        if name in OUTPUTS:
            raise ValueError(
                f"an input and an output of its file are both called '{name}'. Give the inputs "
                "other names: input_names=['image']."
            )
    output = "router_vectors"
    while output in names:
        output += "_"
    check_inputs(model)
    check_state(model)
    converted = to_onnx(
        model,
        names=names,
        output_name=output,
        opset=options.opset,
        batch_size=options.batch_size,
    )
    return converted.bake()


def task_numbers(router: TaskRouter) -> dict[str, int]:
    """Returns the numbers of the tasks that a router knows, in the order of packing, by name.

    Raises:
        ValueError: the router knows no task.
    """
    if not router.tasks:
        raise ValueError(
            "The router knows no task to export. Call router.add(name, images) for each task first."
        )
    return {name: router.net.tasks.index(name) + 1 for name in router.tasks}


def compare(
    router: TaskRouter,
    path: AnyPath,
    options: ExportOptions,
    pixels: Pixels | None,
    samples: Tensors,
) -> float:
    """Compares a file with its router; returns the largest relative difference of the scores.

    Raises:
        ValueError: they differ by more than the tolerance, or `task` is not what the scores say.
    """
    values = noted_range(router.net.notes.get("pixel_range")) or (0.0, 1.0)
    comparison = Comparison(router.features, options, pixels, [False], values)
    opened, difference = session(path), 0.0
    numbers: dict[str | None, int] = {None: NONE}
    numbers.update(task_numbers(router))
    for inputs, _ in comparison.batches(samples):
        [features], (task, scores) = comparison.answers(opened, inputs)
        ours = scores_of(log_likelihoods(features, router.gaussians), router.gaussians)
        apart = float(np.abs(scores - ours).max() / max(np.abs(ours).max(), np.float32(1e-30)))
        named = [numbers[name] for name in router.named(scores)]
        if not apart <= options.tolerance or task.tolist() != named:
            raise ValueError(
                f"The ONNX graph of the router differs from it by {apart:.2e} of the largest "
                f"score (the tolerance is {options.tolerance:.0e}), or names other tasks "
                f"({task.tolist()}, expected {named}). No file was written. If that is precise "
                "enough for you, pass a larger tolerance."
            )
        difference = max(difference, apart)
    return difference


def _manifest_beside(path: pathlib.Path, net: PackNet) -> dict | None:
    """Returns the manifest in the folder of a file; None if there is none.

    Raises:
        ValueError: it lists tasks of another pack, or the file as one of theirs.
    """
    if not (path.parent / manifests.NAME).exists():
        return None
    manifest = manifests.read(path.parent)
    strange = foreign_tasks(net, manifest["tasks"])
    if strange:
        raise ValueError(
            f"'{path.parent}' holds the task '{strange[0]}' of another pack, or of another state "
            "of this one. Export the tasks there again, or name another folder."
        )
    if path.name in [entry["file"] for entry in manifests.files_of_tasks(manifest)]:
        raise ValueError(
            f"'{path}' is a file of the exported tasks, and cannot be the router's. Give the "
            "router another name, or export the tasks with names='number'."
        )
    return manifest
