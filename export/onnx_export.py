"""`export_onnx` and `export_all`: committed tasks as ONNX files."""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from packnet_tf.atomic import replacing
from packnet_tf.cloning import full_precision
from packnet_tf.export import manifest as manifests
from packnet_tf.export import verify
from packnet_tf.export.convert import DEFAULT_OPSET, input_names, to_onnx
from packnet_tf.export.runtime import session
from packnet_tf.net import PackNet


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How tasks are exported.

    Attributes:
        softmax: append a softmax: the output is then `probabilities` instead of `logits`.
        opset: ONNX operator set version.
        batch_size: a fixed batch, or None for any.
        input_names: names of the ONNX inputs, one per input; default `image` for a single image,
            else the names of the trunk's inputs.
        tolerance: largest difference to Keras that is accepted, relative to the largest output.
        metadata: strings for the model's metadata, besides the pack's notes.
    """

    softmax: bool = False
    opset: int = DEFAULT_OPSET
    batch_size: int | None = None
    input_names: Sequence[str] | None = None
    tolerance: float = 1e-4
    metadata: Mapping[str, str] | None = None


def export_onnx(net: PackNet, task: str, path, *, samples=None, **options) -> float:
    """Writes one committed task as an ONNX file, its masked weights baked in as constants.

    No mask or owner is left in the graph; weights that are released or of another task are
    exactly 0. The file's metadata names the task and its classes. The graph is checked by
    `onnx.checker` and compared with the Keras view through onnxruntime before the file appears.

    Args:
        net: the pack.
        task: name of a committed task.
        path: the `.onnx` file to write.
        samples: inputs to compare on besides random ones: an array, or a list of one array per
            input, or a dict as the model takes it, shape (n, ...).
        **options: the fields of `ExportOptions`: softmax, opset, batch_size, input_names,
            tolerance, metadata.

    Returns:
        The largest difference to the Keras view, relative to the largest output.

    Raises:
        ValueError: there is no such task, or the graph differs from Keras by more than the
            tolerance; then no file is left.

    Example:
        >>> export_onnx(net, "birds", "model_birds.onnx", samples=images[:16])
        2.1e-07
    """
    return _export(net, task, path, samples, ExportOptions(**options))["relative_difference"]


def export_all(
    net: PackNet,
    directory,
    *,
    samples: Mapping[str, np.ndarray] | None = None,
    tasks: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
    **options,
) -> dict:
    """Writes every committed task: `model_task1.onnx`, `model_task2.onnx`, ... and a manifest.

    Args:
        net: the pack.
        directory: folder to write to; made if need be.
        samples: by task name, inputs to compare on besides random ones.
        tasks: only these tasks; the manifest keeps the entries of the others.
        progress: called with each task's name before it is exported.
        **options: as for `export_onnx`.

    Returns:
        The manifest, as written to `manifest.json`: a dict whose `tasks` have name, number, file,
        bytes, sha256, inputs, outputs, classes, opset, and the differences to Keras.

    Raises:
        ValueError: there is nothing to export, or a graph differs from Keras.
    """
    names = list(net.tasks if tasks is None else tasks)
    if not names:
        raise ValueError(
            "There is no committed task to export. Train one and call net.commit() first."
        )
    directory, options = pathlib.Path(directory), ExportOptions(**options)
    manifest = manifests.read(directory)
    if tasks is None:
        manifest = {**manifest, "tasks": []}
    directory.mkdir(parents=True, exist_ok=True)
    old = {task["file"] for task in manifests.read(directory)["tasks"]}
    # Beside each other first: when one task fails, the folder is as it was.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory) as aside:
        for name in names:
            if progress is not None:
                progress(name)
            path = pathlib.Path(aside) / f"model_task{_number(net, name)}.onnx"
            entry = _export(net, name, path, (samples or {}).get(name), options)
            manifest = manifests.with_task(manifest, entry)
        for path in pathlib.Path(aside).iterdir():
            path.replace(directory / path.name)
    manifests.write(directory, manifest)
    for gone in old - {task["file"] for task in manifest["tasks"]}:
        (directory / pathlib.PurePath(gone).name).unlink(missing_ok=True)
    return manifest


def _number(net: PackNet, task: str) -> int:
    return net.tasks.index(task) + 1 if task in net.tasks else 0


def _export(net: PackNet, task: str, path, samples, options: ExportOptions) -> dict:
    """Exports one task; returns its entry of the manifest."""
    import onnx

    path = pathlib.Path(path)
    model, view = net.unpack(task), net.task_model(task)
    if any(layer.compute_dtype != layer.variable_dtype for layer in model._flatten_layers()):
        # Half precision is for training; devices get, and are compared with, the weights' own.
        model = view = full_precision(model)
    graph = to_onnx(
        model,
        names=input_names(model, options.input_names),
        output_name="probabilities" if options.softmax else "logits",
        softmax=options.softmax,
        opset=options.opset,
        batch_size=options.batch_size,
    )
    classes = net.classes(task)
    facts = {"task": task, "task_number": str(_number(net, task))}
    notes = {str(k): str(v) for k, v in {**net.notes, **(options.metadata or {})}.items()}
    facts |= notes
    if classes:
        facts["classes"] = json.dumps(classes)
    graph.producer_name, graph.doc_string = "packnet_tf", f"task '{task}' of a PackNet"
    onnx.helper.set_model_props(graph, facts)

    with replacing(path) as temporary:
        onnx.save(graph, os.fspath(temporary))
        onnx.checker.check_model(os.fspath(temporary))
        # Compared with the view, not with the unpacked model the graph was made from: this
        # checks the unpacking too.
        difference = _difference(view, temporary, samples, options)
        if not difference.relative <= options.tolerance:
            raise ValueError(
                f"The ONNX graph of task '{task}' differs from Keras by {difference.relative:.2e} "
                f"of the largest output ({difference.absolute:.2e} absolute), more than the "
                f"tolerance {options.tolerance:.0e}. No file was written. If that is precise "
                "enough for you, pass a larger tolerance."
            )
    return {
        "task": task,
        "number": _number(net, task),
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": manifests.sha256(path),
        "inputs": [_describe(value) for value in graph.graph.input],
        "outputs": [_describe(value) for value in graph.graph.output],
        "classes": classes,
        "opset": options.opset,
        "relative_difference": difference.relative,
        "absolute_difference": difference.absolute,
        "compared_inputs": difference.samples,
        "notes": notes,
    }


def _difference(view, path, samples, options: ExportOptions) -> verify.Difference:
    onnx_session = session(path)
    batches = [verify.random_inputs(view, options.batch_size)]
    if samples is not None:
        # As Keras would take them: one array per input, of the input's dtype.
        arrays = [
            np.asarray(array, keras.backend.standardize_dtype(entry.dtype))
            for array, entry in zip(
                keras.tree.flatten(samples), keras.tree.flatten(view.inputs), strict=True
            )
        ]
        step = options.batch_size or verify.RANDOM_BATCH
        whole = len(arrays[0]) - (len(arrays[0]) % step if options.batch_size else 0)
        batches += [[a[at : at + step] for a in arrays] for at in range(0, whole, step)]
    return verify.worst(
        [verify.compare(view, onnx_session, batch, options.softmax) for batch in batches]
    )


def _describe(value) -> dict:
    import onnx

    tensor = value.type.tensor_type
    shape = [size.dim_value or None for size in tensor.shape.dim]
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return {"name": value.name, "shape": shape, "dtype": dtype}
