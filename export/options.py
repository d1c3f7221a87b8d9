"""The options of an export. Imports neither Keras nor TensorFlow."""

import dataclasses
import difflib
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from packnet_tf.export.graph.outputs import NAMES as OUTPUT_NAMES
from packnet_tf.export.graph.outputs import OUTPUTS, is_output_name
from packnet_tf.export.graph.precision import PRECISIONS
from packnet_tf.export.graph.preprocessing import OPSET as RESIZE_OPSET
from packnet_tf.export.graph.preprocessing import ORDERS, PREPROCESSINGS

# Largest accepted differences in lower precisions, relative to the largest output.
LIMITS = {"float16": 0.05, "int8": 0.5}
DEFAULT_OPSET = 17
# Softmax and Split have the meaning used here from 13 on; the converter supports up to 18.
OPSETS = (13, 18)
# Metadata keys that the export sets itself; notes and options cannot override them.
FACTS = ("task", "task_number", "tasks", "classes", "channel_order", "precision")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        softmax: the same as `outputs="probabilities"`.
        opset: ONNX operator set version, 13 to 18; default 17, or 18 with `preprocessing="uint8"`.
        batch_size: a fixed batch size, or None for any.
        input_names: names of the ONNX inputs, one per input; default `image` for a single image,
            else the names of the trunk's inputs.
        tolerance: largest accepted difference from Keras, relative to the largest output.
        metadata: strings for the model's metadata, in addition to the pack's notes.
        preprocessing: "trained": the file takes the trunk's input; "uint8": it takes decoded
            images, uint8 (batch, height, width, channels) of any size.
        channel_order: with "uint8", the channel order of these images, "rgb" or "bgr".
        pixel_range: with "uint8", the lowest and highest pixel value that the trunk takes; default
            the pack's note `pixel_range`.
        mean, std: with "uint8", subtracted from the scaled pixels, then divided by; a number, or
            one per channel.
        outputs: "logits" (the head's output), "probabilities" (with a softmax over the last axis
            if the head has none), or "top_k": the most probable classes and their probabilities.
        top_k: with "top_k", the number of classes; default 5, or all classes if there are fewer.
        precision: "float32", "float16" or "int8".
        reduce_range: with "int8", keep weights to 7 bits, for x86 CPUs without VNNI.
    """

    softmax: bool = False
    opset: int | None = None
    batch_size: int | None = None
    input_names: Sequence[str] | None = None
    tolerance: float = 1e-4
    metadata: Mapping[str, str] | None = None
    preprocessing: str = "trained"
    channel_order: str = "rgb"
    pixel_range: tuple[float, float] | None = None
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    outputs: str = "logits"
    top_k: int | None = None
    precision: str = "float32"
    reduce_range: bool = False

    def changed(self) -> dict:
        """Returns the options that differ from their default and affect the graph."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("metadata", "softmax")
            and getattr(self, field.name) != field.default
        }

    def __post_init__(self) -> None:
        known = {
            "preprocessing": PREPROCESSINGS,
            "channel_order": ORDERS,
            "outputs": OUTPUTS,
            "precision": PRECISIONS,
        }
        for name, choices in known.items():
            value = getattr(self, name)
            if value not in choices:
                remedy = " or ".join(f"{name}={choice!r}" for choice in choices)
                raise ValueError(f"{name}={value!r} is not known to the export; write {remedy}.")
        if self.softmax:
            if self.outputs not in ("logits", "probabilities"):
                raise ValueError(
                    f"softmax=True gives probabilities, and outputs={self.outputs!r} something "
                    "else. Leave softmax out."
                )
            self._set("outputs", "probabilities")
        self._check_opset()
        for name, least in {"batch_size": None, "top_k": 5}.items():
            value = getattr(self, name)
            if value is not None and (not _is_whole(value) or value < 1):
                raise ValueError(
                    f"{name} is a whole number from 1; got {value!r}. Write {name}={least or 8}."
                )
        if not isinstance(self.tolerance, numbers.Real) or math.isnan(self.tolerance):
            raise ValueError(f"tolerance is a number, 1e-4 for instance; got {self.tolerance!r}.")
        self._set("tolerance", float(self.tolerance))  # the manifest holds numbers of Python
        taken = [name for name in FACTS if name in (self.metadata or {})]
        if taken:
            raise ValueError(
                f"metadata has '{taken[0]}', which the file says of itself. Choose another name."
            )
        self._check_names()
        self._check_pixels()
        if self.reduce_range and self.precision != "int8":
            raise ValueError(
                f'reduce_range is for precision="int8"; got {self.precision!r}. Leave it out.'
            )
        if self.top_k is not None and self.outputs != "top_k":
            raise ValueError(f'top_k={self.top_k} goes with outputs="top_k". Add that.')

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_opset(self) -> None:
        pictures = self.preprocessing == "uint8"
        least = RESIZE_OPSET if pictures else OPSETS[0]
        if self.opset is None:
            self._set("opset", max(DEFAULT_OPSET, least))
        elif not _is_whole(self.opset) or not least <= self.opset <= OPSETS[1]:
            why = ' with preprocessing="uint8", whose Resize averages' if pictures else ""
            raise ValueError(
                f"opset is {least} to {OPSETS[1]}{why}; got {self.opset!r}. Leave it out for "
                f"{max(DEFAULT_OPSET, least)}."
            )

    def _check_names(self) -> None:
        names = self.input_names
        if names is None:
            return
        of_outputs = [name for name in names if is_output_name(str(name))]
        if isinstance(names, str) or len(set(names)) < len(names) or of_outputs:
            raise ValueError(
                f"input_names is a list of different names, none of them an output's "
                f"({', '.join(OUTPUT_NAMES)}); got {names!r}. Write input_names=['image']."
            )
        self._set("input_names", [str(name) for name in names])

    def _check_pixels(self) -> None:
        """Converts the numbers of the preprocessing to plain Python, and checks them."""
        for name in ("mean", "std"):
            values = np.asarray(getattr(self, name), np.float64).reshape(-1)
            zero = " and not 0, because it divides" if name == "std" else ""
            if not np.isfinite(values).all() or not values.size or (zero and not values.all()):
                raise ValueError(f"{name} is finite{zero}; got {getattr(self, name)!r}.")
            self._set(name, float(values[0]) if values.size == 1 else values.tolist())
        if self.pixel_range is not None:
            values = np.asarray(self.pixel_range, np.float64).reshape(-1)
            if values.size != 2 or not np.isfinite(values).all() or values[0] == values[1]:
                raise ValueError(
                    "pixel_range is two numbers, what pixels of 0 and 255 become; got "
                    f"{self.pixel_range!r}. Write pixel_range=(0, 1)."
                )
            self._set("pixel_range", values.tolist())
        if self.preprocessing != "uint8":
            for name in ("channel_order", "pixel_range", "mean", "std"):
                value = getattr(self, name)
                if value != type(self).__dataclass_fields__[name].default:
                    raise ValueError(
                        f"{name}={value!r} is for files that take pictures. Add "
                        'preprocessing="uint8", or leave it out.'
                    )


def read_options(
    given: Mapping[str, Any], unfit: Mapping[str, str] | None = None, *, calibrated: bool = False
) -> ExportOptions:
    """Returns the options that an exporter is given as keyword arguments.

    Args:
        given: the keyword arguments.
        unfit: for names that other exporters take, a sentence that says why this one does not.
        calibrated: whether there are inputs for a calibration.

    Raises:
        TypeError: an option is not known; the message names the nearest one.
        ValueError: an option does not fit.
    """
    known = [field.name for field in dataclasses.fields(ExportOptions)]
    for name in given:
        if name in (unfit or {}):
            raise TypeError(f"{(unfit or {})[name]} Leave {name} out.")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1) or known
            raise TypeError(f"The export has no option '{name}'. Write {' or '.join(near)}.")
    options = ExportOptions(**given)
    if calibrated and options.precision != "int8":
        raise ValueError(f"calibration is for 'int8', not for '{options.precision}'. Leave it out.")
    return options


def recorded_options(entry: Mapping[str, Any]) -> ExportOptions:
    """Returns the options that a manifest records of a task's file.

    Args:
        entry: the task's entry.

    Raises:
        ValueError: they are no options; the message names the file.
    """
    try:
        return read_options(entry["options"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The manifest's options of '{entry['file']}' are damaged: {error}. Export again."
        ) from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
