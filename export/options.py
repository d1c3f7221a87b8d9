"""How tasks are exported."""

import dataclasses
from collections.abc import Mapping, Sequence

from packnet_tf.export.convert import DEFAULT_OPSET
from packnet_tf.export.outputs import OUTPUTS
from packnet_tf.export.precision import PRECISIONS
from packnet_tf.export.preprocessing import OPSET as RESIZE_OPSET
from packnet_tf.export.preprocessing import ORDERS, PREPROCESSINGS


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How tasks are exported.

    Attributes:
        softmax: the same as `outputs="probabilities"`.
        opset: ONNX operator set version; default 17, or 18 with `preprocessing="uint8"`.
        batch_size: a fixed batch, or None for any.
        input_names: names of the ONNX inputs, one per input; default `image` for a single image,
            else the names of the trunk's inputs.
        tolerance: largest difference to Keras that is accepted, relative to the largest output.
        metadata: strings for the model's metadata, besides the pack's notes.
        preprocessing: "trained": the file takes what the trunk takes; "uint8": it takes images as
            they are decoded, uint8 (batch, height, width, channels) of any size.
        channel_order: with "uint8", the order of the channels given to the file, "rgb" or "bgr".
        pixel_range: with "uint8", the lowest and highest pixel value that the trunk takes; default
            the pack's note `pixel_range`.
        mean, std: with "uint8", subtracted from and divided by after that, a number or one per
            channel.
        outputs: "logits", "probabilities" (a softmax over the last axis), or "top_k": the classes
            of the largest probabilities, and these.
        top_k: with "top_k", how many.
        precision: "float32", "float16" or "int8".
        simplify: take output channels out that pruning has left without any weight.
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
    top_k: int = 5
    precision: str = "float32"
    simplify: bool = False

    def changed(self) -> dict:
        """Those that are not the default, without the metadata: the graph does not depend on it."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("metadata", "softmax")
            and getattr(self, field.name) != field.default
        }

    def __post_init__(self):
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
            object.__setattr__(self, "outputs", "probabilities")
        least = RESIZE_OPSET if self.preprocessing == "uint8" else 1
        if self.opset is None:
            object.__setattr__(self, "opset", max(DEFAULT_OPSET, least))
        elif self.opset < least:
            raise ValueError(
                f'preprocessing="uint8" needs operator set {least} (its Resize can average), got '
                f"opset={self.opset}. Write opset={least}, or leave it out."
            )
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 1:
            raise ValueError(f"top_k is a whole number from 1; got {self.top_k!r}. Write top_k=5.")
