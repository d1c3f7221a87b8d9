"""Decoded pictures as they are, to the pixels a trunk takes: within the file."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from packnet_tf.export.graph.walk import read_instead

if TYPE_CHECKING:
    from keras import KerasTensor
    from onnx import ModelProto

    from packnet_tf.export.options import ExportOptions

PREPROCESSINGS = ("trained", "uint8")
ORDERS = ("rgb", "bgr")
OPSET = 18  # the first whose Resize averages when it shrinks
WANTED = "(batch, height, width, channels) with height and width known, and 1 or 3 channels"


@dataclasses.dataclass(frozen=True)
class Pixels:
    """What becomes of a picture, uint8 (batch, any height, any width, channels).

    Attributes:
        height, width, channels: what the trunk takes.
        low, high: what its pixels of 0 and 255 become.
        mean, std: subtracted and divided by after that, one per channel.
        order: of the channels that come in, "rgb" or "bgr"; the trunk takes RGB.
    """

    height: int
    width: int
    channels: int
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str

    @classmethod
    def of(
        cls, inputs: Sequence["KerasTensor"], noted: str | None, options: "ExportOptions"
    ) -> "Pixels":
        """What the inputs of a Keras model need.

        Args:
            inputs: its KerasTensors.
            noted: the pack's note `pixel_range`, "low,high".
            options: the `ExportOptions`.

        Raises:
            ValueError: it takes something other than one image, or an option is missing or wrong.
        """
        shape = tuple(inputs[0].shape)
        images = len(inputs) == 1 and len(shape) == 4 and None not in shape[1:]
        if not images or shape[-1] not in (1, 3):
            found = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
            raise ValueError(
                f'preprocessing="uint8" is for one image input {WANTED}; this model takes {found}. '
                'Write preprocessing="trained".'
            )
        low, high = _range(options.pixel_range, noted)
        mean, std = (
            _per_channel(name, getattr(options, name), shape[-1]) for name in ("mean", "std")
        )
        _, height, width, channels = shape
        return cls(height, width, channels, low, high, mean, std, options.channel_order)

    def gain_and_offset(self) -> tuple[np.ndarray, np.ndarray]:
        """What a pixel of 0 to 255 is multiplied with, and what is added, float32 (channels,)."""
        mean, std = np.array(self.mean), np.array(self.std)
        gain = (self.high - self.low) / 255.0 / std
        return gain.astype(np.float32), ((self.low - mean) / std).astype(np.float32)

    def prepend(self, proto: "ModelProto") -> None:
        """Puts it before the input of an ONNX model, which is changed in place."""
        from onnx import TensorProto, helper, numpy_helper

        [entry] = proto.graph.input
        name = entry.name
        batch = entry.type.tensor_type.shape.dim[0]
        rows = batch.dim_value or batch.dim_param or "batch"
        read_instead(proto.graph, name, "scaled_pixels")
        gain, offset = self.gain_and_offset()
        size = np.array([self.height, self.width], np.int64)
        constants = {"scaled_size": size, "pixel_gain": gain, "pixel_offset": offset}
        # On uint8, as Pillow does: it rounds to whole grey levels. Without `exclude_outside`
        # the border would be darker than Pillow's.
        resize: dict[str, Any] = {
            "mode": "linear",
            "axes": [1, 2],
            "antialias": 1,
            "exclude_outside": 1,
            "coordinate_transformation_mode": "half_pixel",
        }
        make = helper.make_node
        nodes = [
            make("Resize", [name, "", "", "scaled_size"], ["resized"], **resize),
            make("Cast", ["resized"], ["pixel_floats"], to=TensorProto.FLOAT),
        ]
        last = "pixel_floats"
        if self.order == "bgr" and self.channels == 3:
            constants["rgb"] = np.array([2, 1, 0], np.int64)
            nodes.append(make("Gather", [last, "rgb"], ["pixels_in_order"], axis=3))
            last = "pixels_in_order"
        nodes += [
            make("Mul", [last, "pixel_gain"], ["pixels_scaled"]),
            make("Add", ["pixels_scaled", "pixel_offset"], ["scaled_pixels"]),
        ]
        others = list(proto.graph.node)
        del proto.graph.node[:], proto.graph.input[:]
        proto.graph.node.extend([*nodes, *others])
        shape = [rows, "height", "width", self.channels]
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        proto.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in constants.items()
        )

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """The nearest pictures to what the trunk takes: uint8, in the order the file takes."""
        gain, offset = self.gain_and_offset()
        images = np.clip(np.rint((pixels - offset) / gain), 0, 255).astype(np.uint8)
        return images[..., ::-1] if self.order == "bgr" else images

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """What the trunk is given for pictures of its size, float32."""
        gain, offset = self.gain_and_offset()
        images = images[..., ::-1] if self.order == "bgr" else images
        return images.astype(np.float32) * gain + offset

    def rounded(self, pixels: np.ndarray) -> np.ndarray:
        """What the trunk is given for the nearest pictures."""
        return self.pixels(self.images(pixels))

    def facts(self) -> dict:
        """For the manifest."""
        return {"preprocessing": "uint8", **dataclasses.asdict(self)}


def noted_range(noted: str | None) -> tuple[float, float] | None:
    """The lowest and highest pixel value that a note says, "low,high"; None where it says none."""
    try:
        low, high = map(float, (noted or "").split(","))
    except ValueError:
        return None
    return low, high


def _range(given: Sequence[float] | None, noted: str | None) -> tuple[float, float]:
    values = given or noted_range(noted)
    if values is None:
        found = "the pack's notes do not say it"
        if noted:
            found = f"the pack's note pixel_range is {noted!r}"
        raise ValueError(
            'preprocessing="uint8" needs pixel_range, the lowest and highest pixel value that the '
            f"trunk takes; {found}. Write pixel_range=(0, 255), or (0, 1)."
        )
    low, high = values
    return low, high


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    values = np.array(value, np.float64).reshape(-1)
    if values.size not in (1, channels):
        raise ValueError(f"{name} is one number, or one per channel ({channels}); got {value!r}.")
    return tuple(float(entry) for entry in np.broadcast_to(values, channels))
