"""Packed weights in files that the graphs of several tasks share."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from packnet_tf.backend.types import AnyPath
from packnet_tf.export import manifest as manifests
from packnet_tf.export.bundle import owner_codes
from packnet_tf.export.bundle.shared_file import SharedFile
from packnet_tf.export.bundle.stored import encode
from packnet_tf.export.graph.builder import GraphBuilder
from packnet_tf.export.graph.constants import digest
from packnet_tf.packing import bits as packing
from packnet_tf.tasks.state import PackState

SHARED = "shared.data"


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
    files, every = [], shared_owners(folder, manifest, state)
    for entry, owners in zip(manifest["shared"], every, strict=True):
        form = entry["bits"], entry.get("precision", "float32"), entry.get("calibrated", False)
        (first, last), path = entry["tasks"], folder / entry["file"]
        files.append(SharedWeights(path, first, last, owners, *form, entry["tensors"]))
    return files


def shared_owners(folder: pathlib.Path, manifest: dict, state: PackState) -> list[range]:
    """Returns the owner numbers of the tasks in each shared file that a manifest lists.

    Raises:
        ValueError: it lists tasks that the pack does not have.
    """
    tasks = len(state.committed)
    last = max(entry["tasks"][1] for entry in manifest["shared"])
    if last > tasks:
        raise ValueError(
            f"'{folder / manifests.NAME}' describes weights of {last} tasks, but the pack has "
            f"{tasks}. Export it anew."
        )
    return [state.owners_among(*entry["tasks"]) for entry in manifest["shared"]]


@contextlib.contextmanager
def refused_changes(file: SharedWeights) -> Iterator[None]:
    """Refuses weights that an existing file lacks."""
    try:
        yield
    except KeyError:
        raise another_pack(file.path.name) from None


def another_pack(file: str) -> ValueError:
    """Returns the error for a file of an earlier bundle that does not belong to this pack."""
    return ValueError(
        f"'{file}' of the earlier bundle does not hold what the pack's earlier tasks own: it was "
        "made from another pack, or exported otherwise, or a task was released and packed again "
        "since. Update from a bundle of this pack, with the same opset, or leave update_from out."
    )
