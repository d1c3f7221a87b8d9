"""What all tasks of a rival share, and what each of them adds, in memory and in one file."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from packnet_tf.packing.weight import values_of
from packnet_tf.training import checkpoint

Shapes = Sequence[tuple[int, ...]]


@dataclasses.dataclass
class Addition:
    """What one task adds.

    Attributes:
        extra: arrays for its kernels: bool masks, or float32 factors, or nothing.
        own: its biases and normalisation.
        head: its head, built.
    """

    extra: list[np.ndarray]
    own: list[np.ndarray]
    head: keras.Layer

    def arrays(self) -> list[np.ndarray]:
        """Returns the addition as it is stored: a bit for each weight of a mask, else float32."""
        extra = joined(self.extra)
        if extra.dtype == bool:
            extra = np.packbits(extra)
        return [extra, joined(self.own), joined(values_of(self.head.weights))]

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())


@dataclasses.dataclass
class Store:
    """The weights of all tasks.

    Attributes:
        shared: the kernels that all tasks share, a float32 array each.
        rest: further weights that all tasks share.
        additions: what each task adds, in order.
        seed: None; or the seed that the shared kernels can be drawn from again, so that the file
            does not hold them.
    """

    shared: list[np.ndarray]
    rest: list[np.ndarray]
    additions: list[Addition] = dataclasses.field(default_factory=list)
    seed: int | None = None

    def write(self, path: pathlib.Path, trunk: keras.Model) -> int:
        """Writes all that the tasks need, the trunk's layers included.

        Args:
            path: the file, an `.npz`.
            trunk: the plain trunk.

        Returns:
            The size of the file in bytes.
        """
        layers = {
            "trunk": json.loads(trunk.to_json()),
            "heads": [keras.saving.serialize_keras_object(a.head) for a in self.additions],
        }
        # As bytes: NumPy's texts take four for every character.
        text = np.frombuffer(json.dumps(layers).encode(), np.uint8)
        shared = self.rest if self.seed is not None else [*self.shared, *self.rest]
        arrays = [array for addition in self.additions for array in addition.arrays()]
        checkpoint.save(path, {"seed": self.seed}, [text, joined(shared), *arrays])
        return path.stat().st_size

    def read(self, path: pathlib.Path, extra: Shapes, own: Shapes) -> None:
        """Reads what `write` wrote.

        Args:
            path: the file.
            extra, own: shapes of the arrays of each task's addition.
        """
        facts, (text, shared, *arrays) = checkpoint.load(path)
        if facts["seed"] is None:
            shapes = [array.shape for array in [*self.shared, *self.rest]]
            values = divided(shared, shapes)
            self.shared, self.rest = values[: len(self.shared)], values[len(self.shared) :]
        self.additions = []
        for config, more, ours, head in zip(
            json.loads(text.tobytes())["heads"],
            arrays[::3],
            arrays[1::3],
            arrays[2::3],
            strict=True,
        ):
            layer = keras.saving.deserialize_keras_object(config)
            layer.set_weights(divided(head, [weight.shape for weight in layer.weights]))
            if more.dtype == np.uint8:
                more = np.unpackbits(more, count=sum(map(math.prod, extra))).astype(bool)
            self.additions.append(Addition(divided(more, extra), divided(ours, own), layer))


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the values of several arrays as one array of one dimension."""
    if not arrays:
        return np.zeros(0, "float32")
    return np.concatenate([np.asarray(array).reshape(-1) for array in arrays])


def divided(values: np.ndarray, shapes: Shapes) -> list[np.ndarray]:
    """Divides what `joined` returned into arrays of these shapes."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(values, ends[:-1]) if shapes else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
