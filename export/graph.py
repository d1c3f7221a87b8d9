"""An ONNX graph with its constants as arrays that can be changed."""

import collections
import math

import numpy as np

from packnet_tf.export.walk import reads


class Graph:
    """Reads and writes the constants of a graph.

    Args:
        model: an `onnx.ModelProto`; what is written goes there.
    """

    def __init__(self, model):
        from onnx import numpy_helper

        self.model, self.proto = model, model.graph
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        given = {entry.name for entry in self.proto.input}  # a caller may replace these
        self._tensors = {t.name: t for t in self.proto.initializer if t.name not in given}
        self.constants = {n: numpy_helper.to_array(t) for n, t in self._tensors.items()}
        self.reads = collections.Counter(reads(self.proto))
        self.shapes: dict[str, list[int | None]] = {}

    def constant(self, node, place: int) -> np.ndarray | None:
        """The constant that a node has as input `place`, if it has one there."""
        return self.constants.get(node.input[place]) if place < len(node.input) else None

    def write(self, node, place: int, value: np.ndarray) -> None:
        """Sets a constant input of a node; other nodes keep what they read."""
        from onnx import numpy_helper

        node.input.extend([""] * (place + 1 - len(node.input)))
        name = node.input[place]
        if name not in self._tensors or self.reads[name] > 1:
            self.reads[name] -= 1
            name = f"{node.output[0]}_input{place}"
            while name in self.reads:
                name += "_"
            node.input[place], self.reads[name] = name, 1
            self._tensors[name] = self.proto.initializer.add()
        self._tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
        self.constants[name] = value

    def infer_shapes(self) -> None:
        """Notes in `shapes` the sizes of all tensors of known rank; None for an unknown size."""
        import onnx

        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        entries = [*inferred.input, *inferred.value_info, *inferred.output]
        types = {entry.name: entry.type.tensor_type for entry in entries}
        self.shapes = {
            name: [size.dim_value or None for size in tensor.shape.dim]
            for name, tensor in types.items()
            if tensor.HasField("shape")
        }

    def settle_reshapes(self) -> None:
        """Makes targets of Reshape constants that are computed from nothing but a batch's size."""
        self.infer_shapes()
        for node in self.proto.node:
            if node.op_type == "Reshape" and self.constant(node, 1) is None:
                before, after = self.shapes.get(node.input[0]), self.shapes.get(node.output[0])
                if batch_stays(before, after) and not any(a.i for a in node.attribute):
                    self.write(node, 1, np.array([0, *after[1:]], np.int64))  # 0: as it was
        for node in reversed(list(self.proto.node)):  # what computed them
            if not any(self.reads[name] for name in node.output):
                self.reads.subtract(node.input)
                self.proto.node.remove(node)

    def drop_unread(self) -> None:
        """Removes the constants that nothing reads, and what was noted about shapes."""
        used = set(reads(self.proto))
        for tensor in [t for t in self.proto.initializer if t.name not in used]:
            self.proto.initializer.remove(tensor)
        del self.proto.value_info[:]


def batch_stays(before: list | None, after: list | None) -> bool:
    """Whether a reshape leaves the first axis alone, as far as the two shapes tell."""
    if not before or not after or None in before[1:] or None in after[1:]:
        return False
    return math.prod(before[1:]) == math.prod(after[1:])


def attribute(node, name: str, default):
    """An attribute of a node, or the default if the node does not have it."""
    from onnx import helper

    found = [helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name]
    return found[0] if found else default


def pads(node) -> bool:
    """Whether a convolution or pooling pads, or may pad."""
    automatic = attribute(node, "auto_pad", b"NOTSET")
    return any(attribute(node, "pads", ())) or automatic not in (b"NOTSET", b"VALID")
