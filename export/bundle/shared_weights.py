"""Packed weights in files that the graphs of several tasks share."""

import collections
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from keras import ops

from packnet_tf.backend.types import AnyPath
from packnet_tf.export.bundle import owner_codes
from packnet_tf.export.bundle.shared_file import SharedFile, digest
from packnet_tf.export.bundle.stored import decoder, encode, precisions_of
from packnet_tf.export.convert.baking import WeightLayout, bake
from packnet_tf.export.graph.builder import GraphBuilder, external
from packnet_tf.export.graph.canonical import shorten_names
from packnet_tf.export.task_graph import TaskGraph
from packnet_tf.packing import bits as packing
from packnet_tf.packing.weight import PackedWeight
from packnet_tf.tasks.state import PackState

if TYPE_CHECKING:
    from onnx import ModelProto

SHARED = "shared.data"
SMALL = 256  # bytes; smaller constants stay in the graphs
# A task and its ONNX model.
Graph: TypeAlias = "tuple[TaskGraph, ModelProto]"


class SharedWeights(SharedFile):
    """A shared file with the weights of consecutive tasks.

    The first file of a bundle has `first` 1. It holds whole kernels, 0 where none of its tasks owns
    the weight. Each later file holds only the weights of its own tasks. Overlays are beside them.

    Attributes:
        first, last: 1-based places, in the order of packing, of the tasks whose weights it holds.
        owners: the owner numbers of these tasks.
        bits: bits per owner code.
        precision: precision of the stored weights.
    """

    def __init__(
        self,
        path: AnyPath,
        first: int,
        last: int,
        owners: range,
        bits: int,
        precision: str,
        index: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(path, index)
        self.first, self.last, self.owners = first, last, owners
        self.bits, self.precision = bits, precision

    def add(
        self,
        builder: GraphBuilder,
        kernels: Sequence[str],
        values: list[np.ndarray],
        owners: list[np.ndarray],
        sees: Sequence[int],
    ) -> list[str]:
        """Adds the nodes for the packed weights as a task sees them; returns their names.

        Args:
            builder: the `GraphBuilder` of the task's graph.
            kernels: names of the kernels as built from the earlier files; empty for the first.
            values, owners: values and owners of the weights, in the graph's layout.
            sees: numbers of the tasks whose weights the task sees.

        Raises:
            KeyError: the weights are new, and nothing can be added to the file.
        """
        first, end = self.owners.start, self.owners.stop
        here = [(owner >= first) & (owner < end) for owner in owners]
        if self.first == 1:
            kinds = precisions_of([owner.size for owner in owners], self.precision)
            codes = [owner_codes.codes_of(owner, len(self.owners)) for owner in owners]
            seen = self._masks(builder, codes, self.bits, [number - 1 for number in sees])
            wholes = (
                np.where(h, v, np.zeros((), v.dtype)) for h, v in zip(here, values, strict=True)
            )
            return [
                self._whole(builder, whole, owner, mask, kind)
                for whole, owner, mask, kind in zip(wholes, owners, seen, kinds, strict=True)
            ]
        masks = self._masks(builder, here, self.bits, [1])
        return self._override(builder, kernels, values, here, masks)

    def add_overlay(
        self,
        builder: GraphBuilder,
        kernels: Sequence[str],
        values: list[np.ndarray],
        places: list[np.ndarray],
    ) -> list[str]:
        """Adds the nodes for a task's overlay; returns the names of its kernels.

        Args:
            builder: the `GraphBuilder` of the task's graph.
            kernels: names of the kernels without the overlay.
            values: the task's own values, in the graph's layout.
            places: bool arrays of their shapes, True where they count.

        Raises:
            KeyError: the overlay is new, and nothing can be added to the file.
        """
        if not any(own.any() for own in places):
            return list(kernels)
        shapes = [own.shape for own in places]
        packed = packing.pack_places(np.concatenate([own.reshape(-1) for own in places]))
        if packed[0] == packing.GAPS:
            gaps = self._external(builder, packed[1:])
            masks = owner_codes.masks_of_gaps(builder, gaps, packed.size - 1, shapes)
        else:
            masks = self._masks(builder, places, 1, [1])
        return self._override(builder, kernels, values, places, masks)

    def _override(
        self,
        builder: GraphBuilder,
        kernels: Sequence[str],
        values: list[np.ndarray],
        here: list[np.ndarray],
        masks: list[str],
    ) -> list[str]:
        """Adds the nodes that replace a part of every kernel, where the mask is True."""
        kinds, filled = precisions_of([own.size for own in here], self.precision), list(kernels)
        for place, (mask, own) in enumerate(zip(masks, here, strict=True)):
            if own.any():
                whole = np.where(own, values[place], np.zeros((), values[place].dtype))
                stored, decoded = self._encoded(builder, whole, own, kinds[place])
                array = np.append(stored[own], np.zeros(1, stored.dtype))
                spread = owner_codes.spread(
                    builder, self._external(builder, array), mask, own.shape
                )
                filled[place] = builder.node("Where", mask, decoded(spread), filled[place])
        return filled

    def _whole(
        self, builder: GraphBuilder, whole: np.ndarray, owner: np.ndarray, mask: str, kind: str
    ) -> str:
        stored, decoded = self._encoded(builder, whole, owner, kind)
        kernel = decoded(self._external(builder, stored))
        return owner_codes.masked(builder, kernel, mask, whole.dtype)

    def _encoded(
        self, builder: GraphBuilder, whole: np.ndarray, owner: np.ndarray, kind: str
    ) -> tuple[np.ndarray, Callable[[str], str]]:
        """Returns a kernel as it is stored, and a function that adds the nodes to restore it."""
        stored, scale = encode(whole, kind, owner)
        put = functools.partial(self._external, builder)
        return stored, decoder(builder, stored, scale, put)

    def _masks(
        self,
        builder: GraphBuilder,
        codes: Sequence[np.ndarray],
        bits: int,
        chosen: Sequence[int],
    ) -> list[str]:
        parts = [owner_codes.pack_codes(part, bits) for part in codes]
        packed = self._external(builder, np.concatenate(parts))
        return owner_codes.masks(builder, packed, bits, [part.shape for part in codes], chosen)

    def _external(self, builder: GraphBuilder, array: np.ndarray) -> str:
        return builder.external(self.name, self.put(array), array)


def new_files(
    folder: pathlib.Path, state: PackState, known: int, precision: str
) -> list[SharedWeights]:
    """Returns the files to write: one for all tasks, or one per task new to the bundle."""
    tasks = len(state.tasks)
    if not known:
        owners = state.owners_among(1, tasks)
        width = owner_codes.width(len(owners))
        return [SharedWeights(folder / SHARED, 1, tasks, owners, width, precision)]
    paths = {place: folder / f"shared_task{place}.data" for place in range(known + 1, tasks + 1)}
    return [
        SharedWeights(path, place, place, state.owners_among(place, place), 1, precision)
        for place, path in paths.items()
    ]


def opened_files(folder: pathlib.Path, manifest: dict, state: PackState) -> list[SharedWeights]:
    """Returns the shared files that a manifest lists, located in `folder`."""
    files = []
    for entry in manifest["shared"]:
        path, (first, last) = folder / entry["file"], entry["tasks"]
        owners, precision = state.owners_among(first, last), entry.get("precision", "float32")
        files.append(
            SharedWeights(path, first, last, owners, entry["bits"], precision, entry["tensors"])
        )
    return files


def graphs_with_references(tasks: Iterable[TaskGraph], files: list[SharedWeights]) -> list[Graph]:
    """Builds the graphs of tasks with references to shared files in place of weights.

    Args:
        tasks: the tasks; their plain models are dropped.
        files: the shared files of the bundle, both existing ones and those to write.

    Returns:
        Pairs of a task and its `onnx.ModelProto`.

    Raises:
        ValueError: an existing file does not hold the weights of the pack.
    """
    # One task at a time: each plain model takes the memory of a whole network.
    pairs = [(task, _share_weights(task, files)) for task in tasks]
    _share_constants(pairs, files)
    for _, proto in pairs:
        shorten_names(proto.graph)
    return pairs


def _share_weights(task: TaskGraph, files: list[SharedWeights]) -> "ModelProto":
    """Adds a task's weights to its graph: packed weights by reference, others as constants."""
    proto, layouts = task.converted.proto, task.converted.layouts
    shared = {name: layout for name, layout in layouts.items() if layout.source in task.packed}
    weights = [(layout, task.packed[layout.source]) for layout in shared.values()]
    arrays = [(layout, ops.convert_to_numpy(weight.packed)) for layout, weight in weights]
    # Half precision is used in training only; the graph computes in float32.
    values = [layout(array.astype(np.float32, copy=False)) for layout, array in arrays]
    owners = [layout(ops.convert_to_numpy(weight.owner)) for layout, weight in weights]
    if task.options.precision != "float32":
        plain = type(proto)()
        plain.CopyFrom(proto)
        bake(plain.graph, layouts, task.converted.values(layouts))
        task.check_plain(plain, task.comparison.batches(None))
    builder, kernels = GraphBuilder(proto.graph), list[str]()
    for file in files if shared else ():
        try:
            if file.first == 1 or not set(file.owners).isdisjoint(task.sees):
                kernels = file.add(builder, kernels, values, owners, task.sees)
            if task.overlaid and file.first <= task.number <= file.last:
                overlay = [overlay_of(weight, layout) for layout, weight in weights]
                kernels = file.add_overlay(builder, kernels, *map(list, zip(*overlay, strict=True)))
        except KeyError:
            raise another_pack(file.path.name) from None
    for name, kernel in zip(shared, kernels, strict=True):
        builder.alias(name, kernel)
    builder.close()
    own = {name: layout for name, layout in layouts.items() if name not in shared}
    bake(proto.graph, own, task.converted.values(own))
    task.drop_model()
    return proto


def _share_constants(pairs: list[Graph], files: list[SharedWeights]) -> None:
    """Moves constants that several graphs have, such as shared biases, to a shared file."""
    from onnx import TensorProto, numpy_helper

    held = []
    for task, proto in pairs:
        # A graph never reads a file that was written for a later task.
        theirs = [file for file in files if file.first <= task.number]
        for tensor in proto.graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                array = numpy_helper.to_array(tensor)
                # Integers are shapes and indices. ONNX Runtime needs them for shape inference,
                # before it reads external data.
                if array.nbytes >= SMALL and array.dtype.kind == "f":
                    held.append((tensor, array, digest(array), theirs))
    counts = collections.Counter(key for _, _, key, _ in held)
    for tensor, array, key, theirs in held:
        known = [file for file in theirs if key in file.index]
        if not known and counts[key] > 1:
            known = [file for file in theirs if not file.complete]
        if known:
            [file, *_] = known
            offset = file.put(array, key)
            tensor.CopyFrom(external(tensor.name, file.name, offset, array.dtype, array.shape))


def overlay_of(weight: PackedWeight, layout: WeightLayout) -> tuple[np.ndarray, np.ndarray]:
    """Returns a task's own values for a packed weight, and a mask that is True where they count.

    Args:
        weight: the packed weight in the view of a task with an overlay.
        layout: brings it into the graph's layout.
    """
    trainable, claim = map(ops.convert_to_numpy, weight.trained)
    return layout(trainable.astype(np.float32, copy=False)), layout(claim > 0)


def another_pack(file: str) -> ValueError:
    """Returns the error for a file of an earlier bundle that does not belong to this pack."""
    return ValueError(
        f"'{file}' of the earlier bundle does not hold what the pack's earlier tasks own: it was "
        "made from another pack, or exported otherwise, or a task was released and packed again "
        "since. Update from a bundle of this pack, with the same opset, or leave update_from out."
    )
