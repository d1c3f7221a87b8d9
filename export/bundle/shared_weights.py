"""Packed weights in files that the graphs of several tasks share."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel to store.

    Attributes:
        values, owner: the weights and their owners, in the graph's layout.
        kind, channel, least: how it is stored, see `encode`.
    """

    values: np.ndarray
    owner: np.ndarray
    kind: str
    channel: int | None = None
    least: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Piece:
    """The part of a kernel that a shared file holds.

    Attributes:
        stored, scale: the weights, see `encode`; 0 where the file holds none.
        here: bool, where a task sees them.
        nodes: adds the nodes that read them to a graph; returns the names of `here`, empty for
            everywhere, and of the stored weights, which have no meaning elsewhere. It raises a
            KeyError if the weights are new, and nothing can be added to the file.
    """

    stored: np.ndarray
    scale: np.ndarray | None
    here: np.ndarray
    nodes: Callable[[GraphBuilder], tuple[str, str]]


class SharedWeights(SharedFile):
    """A shared file with the weights of consecutive tasks.

    The first file of a bundle has `first` 1. It holds whole kernels, 0 where none of its tasks owns
    the weight. Each later file holds only the weights of its own tasks. Overlays are beside them.

    Attributes:
        first, last: 1-based places, in the order of packing, of the tasks whose weights it holds.
        owners: the owner numbers of these tasks.
        bits: bits per owner code.
        precision: precision of the stored weights.
        calibrated: whether graphs compute with its integers, see `integer_graph`.
    """

    def __init__(
        self,
        path: AnyPath,
        first: int,
        last: int,
        owners: range,
        bits: int,
        precision: str,
        calibrated: bool = False,
        index: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(path, index)
        self.first, self.last, self.owners = first, last, owners
        self.bits, self.precision, self.calibrated = bits, precision, calibrated
        self._encoded: dict[tuple, tuple[np.ndarray, np.ndarray | None]] = {}

    def whole(self, kernels: Sequence[Kernel], sees: Sequence[int]) -> Iterator[Piece]:
        """Yields the kernels as the first file holds them.

        Args:
            kernels: the kernels.
            sees: numbers of the tasks whose weights the task sees.
        """
        codes = [owner_codes.codes_of(kernel.owner, len(self.owners)) for kernel in kernels]

        @functools.cache
        def masks(builder: GraphBuilder) -> list[str]:
            return self._masks(builder, codes, self.bits, [number - 1 for number in sees])

        def piece(place: int, kernel: Kernel) -> Piece:
            held = self._holds(kernel)
            stored, scale = self._encode(kernel, held, kernel.owner)

            def nodes(builder: GraphBuilder) -> tuple[str, str]:
                return masks(builder)[place], self.external(builder, stored)

            return Piece(stored, scale, held & np.isin(kernel.owner, list(sees)), nodes)

        return itertools.starmap(piece, enumerate(kernels))

    def common(self, kernels: Sequence[Kernel]) -> Iterator[Piece]:
        """Yields kernels that all tasks read in the same way, those of a stem.

        Args:
            kernels: the kernels, with owner 1.
        """

        def piece(kernel: Kernel) -> Piece:
            everywhere = np.ones(kernel.values.shape, bool)
            stored, scale = self._encode(kernel, everywhere, kernel.owner)
            return Piece(
                stored, scale, everywhere, lambda builder: ("", self.external(builder, stored))
            )

        return map(piece, kernels)

    def owned(self, kernels: Sequence[Kernel]) -> Iterator[Piece | None]:
        """Yields what the tasks of a later file own; None for a kernel of which they own nothing.

        Args:
            kernels: the kernels.
        """
        here = [self._holds(kernel) for kernel in kernels]
        return self._override(
            kernels, here, lambda builder: self._masks(builder, here, self.bits, [1])
        )

    def overlaid(self, kernels: Sequence[Kernel]) -> Iterator[Piece | None]:
        """Yields an overlay; None for a kernel without one.

        Args:
            kernels: the task's own values, with owner 1 where they count, else 0.
        """
        here = [kernel.owner > 0 for kernel in kernels]

        def masks(builder: GraphBuilder) -> list[str]:
            packed = packing.pack_places(np.concatenate([own.reshape(-1) for own in here]))
            if packed[0] != packing.GAPS:
                return self._masks(builder, here, 1, [1])
            gaps, shapes = self.external(builder, packed[1:]), [own.shape for own in here]
            return owner_codes.masks_of_gaps(builder, gaps, packed.size - 1, shapes)

        return self._override(kernels, here, masks)

    def external(self, builder: GraphBuilder, array: np.ndarray) -> str:
        """Adds a constant to a graph that refers to this file; returns its name."""
        return builder.external(self.name, self.put(array), array)

    def _override(
        self,
        kernels: Sequence[Kernel],
        here: list[np.ndarray],
        masks: Callable[[GraphBuilder], list[str]],
    ) -> Iterator[Piece | None]:
        """Yields parts of kernels that are stored as consecutive values."""
        masks = functools.cache(masks)

        def piece(place: int, kernel: Kernel, own: np.ndarray) -> Piece | None:
            if not own.any():
                return None
            stored, scale = self._encode(kernel, own, own)

            def nodes(builder: GraphBuilder) -> tuple[str, str]:
                mask = masks(builder)[place]
                array = np.append(stored[own], np.zeros(1, stored.dtype))
                flat = self.external(builder, array)
                return mask, owner_codes.spread(builder, flat, mask, own.shape)

            return Piece(stored, scale, own, nodes)

        return map(piece, itertools.count(), kernels, here)

    def _holds(self, kernel: Kernel) -> np.ndarray:
        return (kernel.owner >= self.owners.start) & (kernel.owner < self.owners.stop)

    def _encode(
        self, kernel: Kernel, held: np.ndarray, owner: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Encodes the part of a kernel that the file holds, once for all tasks."""
        part = np.where(held, kernel.values, np.zeros((), kernel.values.dtype))
        if kernel.kind == "float32":
            return part, None
        least = None if kernel.least is None else digest(kernel.least)
        key = (digest(part), digest(owner), kernel.kind, kernel.channel, least)
        if key not in self._encoded:
            self._encoded[key] = encode(part, kernel.kind, owner, kernel.channel, kernel.least)
        return self._encoded[key]

    def _masks(
        self,
        builder: GraphBuilder,
        codes: Sequence[np.ndarray],
        bits: int,
        chosen: Sequence[int],
    ) -> list[str]:
        parts = [owner_codes.pack_codes(part, bits) for part in codes]
        packed = self.external(builder, np.concatenate(parts))
        return owner_codes.masks(builder, packed, bits, [part.shape for part in codes], chosen)


def new_files(
    folder: pathlib.Path, state: PackState, known: int, precision: str, calibrated: bool = False
) -> list[SharedWeights]:
    """Returns the files to write: one for all tasks, or one per task new to the bundle."""
    tasks, form = len(state.tasks), (precision, calibrated)
    if not known:
        owners = state.owners_among(1, tasks)
        width = owner_codes.width(len(owners))
        return [SharedWeights(folder / SHARED, 1, tasks, owners, width, *form)]
    paths = {place: folder / f"shared_task{place}.data" for place in range(known + 1, tasks + 1)}
    return [
        SharedWeights(path, place, place, state.owners_among(place, place), 1, *form)
        for place, path in paths.items()
    ]


def opened_files(folder: pathlib.Path, manifest: dict, state: PackState) -> list[SharedWeights]:
    """Returns the shared files that a manifest lists, located in `folder`."""
    files = []
    for entry in manifest["shared"]:
        first, last = entry["tasks"]
        form = entry["bits"], entry.get("precision", "float32"), entry.get("calibrated", False)
        owners, path = state.owners_among(first, last), folder / entry["file"]
        files.append(SharedWeights(path, first, last, owners, *form, entry["tensors"]))
    return files


def graphs_with_references(
    tasks: Iterable[TaskGraph],
    files: list[SharedWeights],
    share: "Callable[[TaskGraph, list[SharedWeights]], ModelProto]",
) -> list[Graph]:
    """Builds the graphs of tasks with references to shared files in place of weights.

    Args:
        tasks: the tasks; their plain models are dropped.
        files: the shared files of the bundle, both existing ones and those to write.
        share: builds the graph of a task, such as `restored_graph`.

    Returns:
        Pairs of a task and its `onnx.ModelProto`.

    Raises:
        ValueError: an existing file does not hold the weights of the pack.
    """
    pairs = list[Graph]()
    for task in tasks:  # one at a time: each plain model takes the memory of a whole network
        pairs.append((task, share(task, files)))
        task.drop_model()
    _share_constants(pairs, files)
    for _, proto in pairs:
        shorten_names(proto.graph)
    return pairs


def restored_graph(task: TaskGraph, files: list[SharedWeights]) -> "ModelProto":
    """Builds the graph of a task that restores its packed weights to float32."""
    proto, layouts = task.converted.proto, task.converted.layouts
    shared = [name for name, layout in layouts.items() if layout.source in task.packed]
    if task.options.precision != "float32":
        task.check_plain(plain_graph(task), task.comparison.batches(None))
    builder, weights = GraphBuilder(proto.graph), [""] * len(shared)
    kinds = precisions_of([size_of(task, name) for name in shared], files[0].precision)
    kernels = [kernel_of(task, name, kind) for name, kind in zip(shared, kinds, strict=True)]
    for file, pieces in pieces_of(task, files, shared, kernels):
        with refused_changes(file):
            for place, piece in enumerate(pieces):
                if piece is not None:
                    mask, name = piece.nodes(builder)
                    put = functools.partial(file.external, builder)
                    value = decoder(builder, piece.stored, piece.scale, put)(name)
                    if weights[place]:
                        weights[place] = builder.node("Where", mask, value, weights[place])
                    else:
                        weights[place] = owner_codes.masked(builder, value, mask, np.dtype("f4"))
    for name, kernel in zip(shared, weights, strict=True):
        builder.alias(name, kernel)
    builder.close()
    own = {name: layout for name, layout in layouts.items() if name not in shared}
    bake(proto.graph, own, task.converted.values(own))
    return proto


def plain_graph(task: TaskGraph) -> "ModelProto":
    """Returns the graph of a task with its weights in float32."""
    plain, layouts = type(task.converted.proto)(), task.converted.layouts
    plain.CopyFrom(task.converted.proto)
    bake(plain.graph, layouts, task.converted.values(layouts))
    return plain


def size_of(task: TaskGraph, name: str) -> int:
    """Returns the number of weights in a kernel of a task's graph."""
    return math.prod(task.converted.weights[task.converted.layouts[name].source].shape)


def kernel_of(task: TaskGraph, name: str, kind: str) -> Kernel:
    """Returns a packed kernel of a task's graph, or one of a stem.

    Args:
        task: the task.
        name: the kernel's name in its graph.
        kind: how it is stored, see `encode`.
    """
    layout = task.converted.layouts[name]
    if layout.source not in task.packed:
        values = exact_kernel(task, name)
        return Kernel(values, np.ones(values.shape, np.uint8), kind)
    weight = task.packed[layout.source]
    # Half precision is used in training only; the graph computes in float32.
    values = layout(ops.convert_to_numpy(weight.packed).astype(np.float32, copy=False))
    return Kernel(values, layout(ops.convert_to_numpy(weight.owner)), kind)


def exact_kernel(task: TaskGraph, name: str) -> np.ndarray:
    """Returns a kernel in float32, as the task sees it."""
    layout = task.converted.layouts[name]
    [values] = task.converted.values({name: layout}).values()
    return layout(values)


def pieces_of(
    task: TaskGraph, files: list[SharedWeights], names: Sequence[str], kernels: Sequence[Kernel]
) -> Iterator[tuple[SharedWeights, Iterable[Piece | None]]]:
    """Yields files, and for each kernel the part that the task reads from the file.

    A later one replaces what it has of those before. The pieces of a calibrated bundle have the
    scales of the first file or larger ones, so that most meet in one scale without rounding again.

    Args:
        task: the task.
        files: the shared files.
        names: names of packed kernels in its graph.
        kernels: the same, see `kernel_of`.
    """
    for file in files if kernels else ():
        if file.first == 1:
            pieces: Iterable[Piece] = file.whole(kernels, task.sees)
            if file.calibrated:
                pieces = list(pieces)
                kernels = [
                    dataclasses.replace(kernel, least=piece.scale)
                    for kernel, piece in zip(kernels, pieces, strict=True)
                ]
            yield file, pieces
        elif not set(file.owners).isdisjoint(task.sees):
            yield file, file.owned(kernels)
        if task.overlaid and file.first <= task.number <= file.last:
            yield (
                file,
                file.overlaid(
                    [
                        _overlay(task, name, kernel)
                        for name, kernel in zip(names, kernels, strict=True)
                    ]
                ),
            )


def _overlay(task: TaskGraph, name: str, kernel: Kernel) -> Kernel:
    layout = task.converted.layouts[name]
    values, here = overlay_of(task.packed[layout.source], layout)
    return dataclasses.replace(kernel, values=values, owner=here)


@contextlib.contextmanager
def refused_changes(file: SharedWeights) -> Iterator[None]:
    """Refuses weights that an existing file lacks."""
    try:
        yield
    except KeyError:
        raise another_pack(file.path.name) from None


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
