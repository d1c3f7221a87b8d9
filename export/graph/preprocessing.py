"""Preprocessing within the file: decoded images to the trunk's input."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from packnet_tf.export.graph.walk import free_names, read_instead

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
    """The preprocessing of images, uint8 (batch, any height, any width, channels).

    Attributes:
        height, width, channels: size of the trunk's input.
        low, high: the values that pixels of 0 and 255 are scaled to.
        mean, std: subtracted from the scaled pixels, then divided by; one per channel.
        order: channel order of the images, "rgb" or "bgr"; the trunk takes RGB.
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
        """Returns the preprocessing for the inputs of a Keras model.

        Args:
            inputs: the model's KerasTensors.
            noted: the pack's note `pixel_range`, "low,high".
            options: the `ExportOptions`.

        Raises:
            ValueError: the input is not one image, or an option is missing or wrong.
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
        """Returns the factor and the offset for pixels of 0 to 255, float32 (channels,) each."""
        mean, std = np.array(self.mean), np.array(self.std)
        gain = (self.high - self.low) / 255.0 / std
        return gain.astype(np.float32), ((self.low - mean) / std).astype(np.float32)

    def prepend(self, proto: "ModelProto") -> None:
        """Inserts the preprocessing at the input of an ONNX model, which is changed in place."""
        from onnx import TensorProto, helper, numpy_helper

        [entry] = proto.graph.input
        name = entry.name
        batch = entry.type.tensor_type.shape.dim[0]
        rows = batch.dim_value or batch.dim_param or "batch"
        free = free_names(proto.graph)
        sizes_name, gain_name, offset_name, rgb = map(
            free, ("scaled_sizes", "pixel_gain", "pixel_offset", "rgb")
        )
        taken = free("scaled_pixels")
        read_instead(proto.graph, name, taken)
        gain, offset = self.gain_and_offset()
        fixed = [batch.dim_value] if batch.dim_value else []
        sizes = np.array([*fixed, self.height, self.width, self.channels], np.int64)
        constants = {sizes_name: sizes, gain_name: gain, offset_name: offset}
        # Resize uint8 as Pillow does, which rounds to whole grey levels. Without `exclude_outside`
        # the border would be darker than Pillow's. It is given all four sizes: sizes of two `axes`
        # are wrong shapes to onnxslim and to onnxruntime's symbolic shape inference.
        resize: dict[str, Any] = {
            "mode": "linear",
            "antialias": 1,
            "exclude_outside": 1,
            "coordinate_transformation_mode": "half_pixel",
        }
        nodes = []

        def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
            output = output if output == taken else free(output)
            nodes.append(helper.make_node(kind, inputs, [output], **attributes))
            return output

        all_sizes = sizes_name
        if not fixed:
            count = add("Shape", [name], "image_count", end=1)
            all_sizes = add("Concat", [count, sizes_name], "all_sizes", axis=0)
        last = add("Resize", [name, "", "", all_sizes], "resized", **resize)
        last = add("Cast", [last], "pixel_floats", to=TensorProto.FLOAT)
        if self.order == "bgr" and self.channels == 3:
            constants[rgb] = np.array([2, 1, 0], np.int64)
            last = add("Gather", [last, rgb], "pixels_in_order", axis=3)
        last = add("Mul", [last, gain_name], "pixels_scaled")
        kind = entry.type.tensor_type.elem_type
        if kind == TensorProto.FLOAT:
            add("Add", [last, offset_name], taken)
        else:  # the trunk takes integers, to which Keras casts what it is given
            last = add("Add", [last, offset_name], "pixels_moved")
            add("Cast", [last], taken, to=kind)
        others = list(proto.graph.node)
        del proto.graph.node[:], proto.graph.input[:]
        proto.graph.node.extend([*nodes, *others])
        shape = [rows, "height", "width", self.channels]
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        proto.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in constants.items()
        )

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Inverts `pixels`, rounded to uint8, with the channels in the file's order."""
        gain, offset = self.gain_and_offset()
        images = np.clip(np.rint((pixels - offset) / gain), 0, 255).astype(np.uint8)
        return images[..., ::-1] if self.order == "bgr" else images

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Returns the trunk's input, float32, for uint8 images of the trunk's size."""
        gain, offset = self.gain_and_offset()
        images = images[..., ::-1] if self.order == "bgr" else images
        return images.astype(np.float32) * gain + offset

    def rounded(self, pixels: np.ndarray) -> np.ndarray:
        """Rounds a trunk's input to the nearest values that uint8 images can give."""
        return self.pixels(self.images(pixels))

    def facts(self) -> dict:
        """Returns the manifest's entry `preprocessing`."""
        return {"preprocessing": "uint8", **dataclasses.asdict(self)}


def noted_range(noted: str | None) -> tuple[float, float] | None:
    """Parses a note "low,high", the lowest and highest pixel value; None if it is missing."""
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
