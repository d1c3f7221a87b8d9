"""Exports one committed task from Keras to a checked file."""

import dataclasses
import functools
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import keras
import numpy as np

from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.backend.types import AnyData, AnyPath, Tensors
from packnet_tf.export import manifest as manifests
from packnet_tf.export.convert.checksum import task_digest
from packnet_tf.export.convert.supported import (
    check_inputs,
    check_state,
    computed,
    named,
    remedy,
)
from packnet_tf.export.convert.to_onnx import input_names, to_onnx
from packnet_tf.export.files import is_large, save
from packnet_tf.export.graph.outputs import (
    append_outputs,
    check_outputs,
    default_top_k,
    ends_in_probabilities,
    name_outputs,
)
from packnet_tf.export.graph.precision import to_precision
from packnet_tf.export.graph.preprocessing import Pixels, noted_range
from packnet_tf.export.options import FACTS, ExportOptions
from packnet_tf.export.runtime.batches import input_batches
from packnet_tf.export.runtime.comparison import Comparison, Difference
from packnet_tf.export.runtime.session import optimize, session
from packnet_tf.net import PackNet
from packnet_tf.packing.cloning import full_precision, packed_kernels
from packnet_tf.packing.policy import stem_layers
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.packing.weight import PackedWeight

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto
    from onnxruntime import InferenceSession

    from packnet_tf.export.runtime.task_session import TaskSession

Method = TypeVar("Method", bound=Callable[..., Any])


NO_ROUNDING = 0.01  # relative difference of a float32 file that another order of sums cannot make


@dataclasses.dataclass(frozen=True)
class Data:
    """Inputs of one task, as its Keras model takes them.

    Attributes:
        samples: inputs to compare on, in addition to random ones.
        calibration: inputs for calibrating int8 activation ranges: an array, or batches.
        evaluate: pairs (inputs, labels) to measure accuracy on.
    """

    samples: Tensors = None
    calibration: AnyData = None
    evaluate: Iterable | None = None


class DifferenceError(ValueError):
    """Raised for a graph that answers differently from Keras by more than the tolerance."""


def _of_onnxruntime(method: Method) -> Method:
    """Names the task, and a remedy, in errors of onnxruntime about its graph."""

    @functools.wraps(method)
    def run(self: "TaskGraph", *args: Any, **kwargs: Any) -> Any:
        with computed(f"task '{self.task}'", self.view):
            return method(self, *args, **kwargs)

    return cast(Method, run)


class TaskGraph:
    """A task converted to ONNX, without its weights.

    Args:
        net: the pack.
        task: name of a committed task.
        options: the options of the export. An adopted trunk without a head gives its features,
            whatever `outputs` is.

    Attributes:
        converted: the graph, and the weights that it lacks.
        packed: the packed weights among these, by name, as the task's view has them.
        stem: the names of those that all tasks share, because they are in the stem.
        sees: numbers of the owners whose weights it sees, ascending, see `TaskView`.
        number: its 1-based place in the order of packing.
        overlaid: whether it has an overlay.

    Raises:
        ValueError: there is no such task, or an option does not fit its model.
    """

    def __init__(self, net: PackNet, task: str, options: ExportOptions) -> None:
        net.state.check_weights(f"export task '{task}' or check its file")
        self.net, self.task, self.options = net, task, options
        self.model, self.view = net.unpack(task), net.task_model(task)
        self.sees, head = net.state.record(task).sees, self.view.head
        self.number = net.tasks.index(task) + 1
        self.overlaid = net.state.record(task).overlay is not None
        trunk = self.view.trunk
        with named(f"task '{task}'"):
            check_inputs(self.model)
            check_state(self.model)
        dtypes = {x.compute_dtype for x in all_layers(self.model)}
        if dtypes & {"float16", "bfloat16", "float64"}:
            # Mixed and half precision are for training. Exported files compute in float32, and
            # they are compared with a float32 model.
            self.model = self.view = full_precision(self.model)
        self.pixels = None
        if options.preprocessing == "uint8":
            inputs = keras.tree.flatten(self.model.inputs)
            self.pixels = Pixels.of(inputs, net.notes.get("pixel_range"), options)
        self.names = input_names(self.model, options.input_names)
        assert options.opset is not None  # the options have chosen one
        with named(f"task '{task}'"):
            self.converted = to_onnx(
                self.model, names=self.names, opset=options.opset, batch_size=options.batch_size
            )
        proto = self.converted.proto
        features = type(head) is keras.layers.Identity and not net.classes(task)  # adopted
        if features:  # there are no classes to rank, nor probabilities
            options = dataclasses.replace(options, outputs="logits", softmax=False, top_k=None)
        elif options.outputs == "top_k" and options.top_k is None:
            options = dataclasses.replace(options, top_k=default_top_k(proto))
        self.options = options
        # Compare with the view and not with the unpacked model that the graph is made from: this
        # checks the unpacking too.
        values = noted_range(net.notes.get("pixel_range")) or (0.0, 1.0)
        self.comparison = Comparison(
            self.view, options, self.pixels, ends_in_probabilities(proto), values
        )
        self.gives_probabilities = self.comparison.gives_probabilities
        name_outputs(proto, features, self.gives_probabilities)
        with named(f"task '{task}'"):
            check_outputs(proto, options.outputs, options.top_k, self.gives_probabilities)
        self.packed = self._packed(trunk)
        self.stem = self._stem(trunk)

    def _packed(self, trunk: PackedTrunk) -> dict[str, PackedWeight]:
        kernels = packed_kernels(trunk, self.model.get_layer(trunk.name))
        by_id = {id(kernel): weight for kernel, weight in kernels}
        return {
            name: by_id[id(variable)]
            for name, variable in self.converted.weights.items()
            if id(variable) in by_id
        }

    def _stem(self, trunk: PackedTrunk) -> set[str]:
        layers = stem_layers(self.model.get_layer(trunk.name), self.net.policy.stem)
        ids = {id(variable) for layer in layers for variable in layer.weights}
        weights = self.converted.weights.items()
        return {name for name, variable in weights if id(variable) in ids}

    def drop_model(self) -> None:
        """Drops the plain model, once its weights are in the graph."""
        del self.model, self.converted

    def export(self, path: AnyPath, data: Data) -> dict:
        """Writes the task with its weights in the file, and checks it; see `finish`."""
        proto = self.lowered(self.converted.bake(), data)
        return {**self.finish(proto, path, data), **self.calibrated(data)}

    def lowered(self, proto: "ModelProto", data: Data) -> "ModelProto":
        """Applies the options to a graph with weights.

        Args:
            proto: the `onnx.ModelProto`, in float32.
            data: inputs to compare and calibrate on.

        Returns:
            The graph as it is written to the task's file.

        Raises:
            ValueError: the graph, before its precision is changed, differs from Keras by more than
                the tolerance, or is too large for the change.
        """
        options = self.options
        if options.precision != "float32":
            self.check_size(proto)
            self.check_plain(proto, self.comparison.batches(data.samples, wide=True))
        feeds = self.feeds(data.calibration)
        proto = to_precision(proto, options.precision, feeds, options.reduce_range)
        return self.finalize_graph(proto)

    @_of_onnxruntime
    def finish(
        self, proto: "ModelProto", path: AnyPath, data: Data, *, optimized: bool = False
    ) -> dict:
        """Writes a finalized graph and checks it.

        Args:
            proto: the `onnx.ModelProto`; it may refer to files in the folder of `path`.
            path: the file to write, in a temporary folder of the caller.
            data: inputs to compare and evaluate on.
            optimized: also write and check `NAME.ort`, optimized by ONNX Runtime.

        Returns:
            The task's entry in the manifest.

        Raises:
            ValueError: the graph differs from Keras by more than the tolerance.
        """
        path = pathlib.Path(path)
        files = save(proto, path)
        found = self.measured(session(path), data)
        if optimized:
            files.append(path.with_suffix(".ort"))
            optimize(path, files[-1])
            rounding = 0.0 if self.options.precision == "float32" else found["relative_difference"]
            batches = self.comparison.batches(data.samples)
            self.check(self.comparison.difference(session(files[-1]), batches), rounding)
        written = [manifests.describe_file(file) for file in files]
        whole = {**written[0], "external": written[1:], **described(proto)}
        return {**self.facts(), **whole, **found}

    @_of_onnxruntime
    def measured(self, opened: "InferenceSession | TaskSession", data: Data) -> dict:
        """Compares an open file with Keras; returns the entries of the manifest about that.

        Raises:
            ValueError: a float32 file differs by more than the tolerance.
        """
        found = self.comparison.difference(opened, self.comparison.batches(data.samples))
        if self.options.precision == "float32":
            self.check(found)
        entry: dict[str, Any] = {
            "relative_difference": found.relative,
            "absolute_difference": found.absolute,
            "agreement": found.agreement,
            "compared_inputs": found.samples,
        }
        if data.evaluate is not None:
            entry["evaluated"] = self.comparison.accuracy(opened, data.evaluate)
        return entry

    def calibrated(self, data: Data) -> dict:
        """Returns the entry of the manifest about the calibration of a lower precision."""
        lower = self.options.precision != "float32"
        return {"calibrated": data.calibration is not None} if lower else {}

    def finalize_graph(self, proto: "ModelProto") -> "ModelProto":
        """Gives a graph the inputs, outputs and metadata that the options request."""
        if self.pixels is not None:
            self.pixels.prepend(proto)
        append_outputs(proto, self.options.outputs, self.options.top_k, self.gives_probabilities)
        self._describe(proto)
        return proto

    @_of_onnxruntime
    def check_plain(self, proto: "ModelProto", batches: list[tuple[list[np.ndarray], int]]) -> None:
        """Checks a float32 graph before its precision is changed."""
        plain = dataclasses.replace(self.options, outputs="logits", softmax=False, top_k=None)
        comparison = Comparison(self.view, plain, None, self.gives_probabilities)
        if self.pixels is not None:
            [taken] = keras.tree.flatten(self.view.inputs)
            seen, dtype = self.pixels.rounded, keras.backend.standardize_dtype(taken.dtype)
            batches = [([seen(arrays[0]).astype(dtype)], count) for arrays, count in batches]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "plain.onnx"
            save(proto, path)
            self.check(comparison.difference(session(path), batches))

    def check_size(self, proto: "ModelProto") -> None:
        """Refuses a graph that the tools for lower precisions cannot hold."""
        if is_large(proto):
            raise ValueError(
                f"The weights of task '{self.task}' take more than 2 GB, and the tools that change "
                "precision handle less. Leave precision out."
            )

    def check(self, found: Difference, rounding: float = 0.0) -> None:
        """Refuses a difference above the tolerance and what the precision costs (`rounding`)."""
        allowed = self.options.tolerance + rounding
        if not found.relative <= allowed:
            what = "If that is precise enough for you, pass a larger tolerance"
            if self.options.precision == "float32" and not found.relative < NO_ROUNDING:
                what = f"That is no rounding. {remedy(self.view, 'the layer that causes it')}"
            raise DifferenceError(
                f"The ONNX graph of task '{self.task}' differs from Keras by {found.relative:.2e} "
                f"of the largest output ({found.absolute:.2e} absolute), more than the "
                f"tolerance {allowed:.0e}. No file was written. {what}."
            )

    def feeds(self, calibration: AnyData) -> list[Mapping[str, np.ndarray]] | None:
        """Returns batches for the calibration, as dicts by ONNX input name."""
        if calibration is None:
            return None
        size = self.options.batch_size
        batches = list(input_batches(self.view, calibration, size))
        # What fills an incomplete batch would count as further inputs.
        whole = [pair for pair in batches if pair[1] == size] if size else batches
        return [dict(zip(self.names, batch, strict=True)) for batch, _ in whole or batches]

    def _describe(self, proto: "ModelProto") -> None:
        """Writes the task's name, its classes and other facts to the file's metadata."""
        import onnx

        options, classes = self.options, self.net.classes(self.task)
        facts = {"task": self.task, "task_number": str(self.number)}
        if classes:
            facts["classes"] = json.dumps(classes)
        if self.pixels is not None:
            facts["channel_order"] = options.channel_order
        if options.precision != "float32":
            facts["precision"] = options.precision
        notes = {key: text for key, text in self._notes().items() if key not in FACTS}
        facts = notes | facts
        proto.producer_name = "packnet_tf"
        proto.doc_string = f"task '{self.task}' of a PackNet"
        onnx.helper.set_model_props(proto, facts)

    def _notes(self) -> dict[str, str]:
        notes = {**self.net.notes, **(self.options.metadata or {})}
        return {str(key): str(value) for key, value in notes.items()}

    def facts(self) -> dict:
        """Returns the entries of the manifest about the task and the options."""
        return {
            "task": self.task,
            "number": self.number,
            "classes": self.net.classes(self.task),
            "own_sha256": task_digest(self.net, self.task),
            "opset": self.options.opset,
            "precision": self.options.precision,
            "preprocessing": "trained" if self.pixels is None else self.pixels.facts(),
            "options": self.options.changed(),
            "notes": self._notes(),
            "made_by": manifests.made_by(),
        }


def described(proto: "ModelProto") -> dict:
    """Returns the inputs and outputs of a model: names, shapes (None: any size) and dtypes."""
    return {
        "inputs": [_describe_value(value) for value in proto.graph.input],
        "outputs": [_describe_value(value) for value in proto.graph.output],
    }


def _describe_value(value: "ValueInfoProto") -> dict:
    import onnx

    tensor = value.type.tensor_type
    shape = [size.dim_value or None for size in tensor.shape.dim]
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return {"name": value.name, "shape": shape, "dtype": dtype}
