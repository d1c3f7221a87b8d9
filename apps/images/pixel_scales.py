"""The pixel values that a network expects, known for models of keras.applications."""

import numpy as np

# The class names of the operations that `preprocess_input` leaves in a graph.
ARITHMETIC = ("Multiply", "TrueDivide", "Divide", "Subtract", "Add")
# The scale of keras.applications' preprocess_input, by the start of the model's name.
_SCALES = {
    "caffe": ("VGG", "ResNet50", "ResNet101", "ResNet152"),
    "torch": ("DenseNet", "VGG16_BN"),
    "symmetric": ("MobileNet", "Xception", "Inception", "NASNet"),
    "bytes": ("EfficientNet", "ConvNeXt", "MobileNetV3"),
}
SCALES = ("unit", "bytes", "symmetric", "torch", "caffe")


def application_scale(name: str) -> str:
    """Returns the pixel scale of a keras.applications model by name; see `scale_pixels`."""
    if name.endswith("V2") and name.startswith("ResNet"):
        return "symmetric"
    fits = [
        (len(start), scale)
        for scale, starts in _SCALES.items()
        for start in starts
        if name.startswith(start)
    ]
    return max(fits)[1] if fits else "bytes"


def scale_of(network) -> tuple[str, str] | None:
    """Returns the pixel scale of a network from a file and the reason, or None if unknown.

    Integers are 0 to 255. Otherwise the operations between the input and the first weights decide,
    or else the name that keras.applications gave to the network or to a model within it.

    Args:
        network: a Keras model.
    """
    import keras

    from packnet_tf.backend.keras_internals import all_layers

    taken = integers_of(network)
    if taken is not None:
        return "bytes", f"it takes {taken}"
    found = scale_by_layers(network)
    if found is not None:
        return found
    for part in all_layers(network):
        known = _by_name(part.name) if isinstance(part, keras.Model) else None
        if known is not None and (known not in ("torch", "caffe") or network.input_shape[-1] == 3):
            return known, f"it has '{part.name}', a name that keras.applications gives"
    return None


def integers_of(network) -> str | None:
    """Returns the dtype of a network's input if it is of integers, else None.

    Args:
        network: a Keras model.
    """
    import keras

    taken = keras.backend.standardize_dtype(network.inputs[0].dtype)
    return taken if "int" in taken else None


def scale_by_layers(network) -> tuple[str, str] | None:
    """Returns the pixel scale of a network that scales pixels itself and the layer; or None.

    Args:
        network: a Keras model.
    """
    import keras

    for step in _steps(network):
        if isinstance(step, keras.layers.Rescaling):
            takes_unit = np.abs(np.asarray(step.scale)).max() >= 0.5
        elif isinstance(step, keras.layers.Normalization):
            takes_unit = np.abs(keras.ops.convert_to_numpy(step.mean)).max() <= 2.0
        elif type(step).__name__ in ARITHMETIC:
            takes_unit = False
        elif getattr(step, "weights", None):
            break
        else:
            continue
        return "unit" if takes_unit else "bytes", f"'{step.name}' scales them"
    return None


def _steps(network):
    """Yields the layers of a network and of its nested models, in order from the input."""
    import keras

    for step in network.layers if isinstance(network, keras.Sequential) else network.operations:
        if isinstance(step, keras.Model) and hasattr(step, "layers"):
            yield from _steps(step)
        else:
            yield step


def _by_name(name: str) -> str | None:
    """Returns the scale for a keras.applications name, if the network does not scale pixels."""
    plain = _plain(name)
    fits = [
        (len(start), start, scale)
        for scale, starts in _SCALES.items()
        for start in starts
        if plain.startswith(_plain(start))
    ]
    if not fits:
        return None
    _, start, scale = max(fits)
    if start.startswith("ResNet") and plain.startswith(f"{_plain(start)}v2"):
        return "symmetric"
    if scale == "bytes":  # built without its layers that scale
        return "torch" if start == "ConvNeXt" else "symmetric"
    return scale


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def rescaled(pixels, scale, offset):
    """Multiplies pixels by a scale, then adds an offset, inside the graph.

    Args:
        pixels: KerasTensor (batch, height, width, channels), float32.
        scale, offset: numbers, or one per channel; None: 1 and 0.
    """
    import keras

    channels = pixels.shape[-1]
    values = [1.0 if scale is None else scale, 0.0 if offset is None else offset]
    factors, shifts = (np.broadcast_to(np.asarray(v, float), channels).tolist() for v in values)
    return keras.layers.Rescaling(factors, offset=shifts, name="scale_pixels")(pixels)


def scale_pixels(pixels, scale: str):
    """Scales pixels of 0 to 255 inside the graph.

    Args:
        pixels: KerasTensor (batch, height, width, channels), float32.
        scale: "unit" (0 to 1), "bytes" (unchanged), "symmetric" (-1 to 1), "torch" (0 to 1, then
            normalised by ImageNet's mean and standard deviation), "caffe" (BGR, ImageNet's mean
            subtracted).
    """
    import keras

    if scale in ("torch", "caffe") and pixels.shape[-1] != 3:
        raise ValueError(
            f"The pixel scale {scale!r} is for RGB, and the trunk takes {pixels.shape[-1]} "
            "channel. Write unit, bytes or symmetric."
        )
    if scale == "bytes":
        return pixels
    if scale == "unit":
        return keras.layers.Rescaling(1 / 255, name="scale_pixels")(pixels)
    if scale == "symmetric":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale_pixels")(pixels)
    if scale == "torch":
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return keras.layers.Rescaling(
            [1 / (255 * d) for d in deviation],
            offset=[-m / d for m, d in zip(mean, deviation, strict=True)],
            name="scale_pixels",
        )(pixels)
    if scale == "caffe":
        mean = [-103.939, -116.779, -123.68]
        return keras.layers.Rescaling([1.0, 1.0, 1.0], offset=mean, name="scale_pixels")(
            keras.ops.flip(pixels, axis=-1)
        )
    raise ValueError(f"There is no pixel scale {scale!r}; write one of {', '.join(SCALES)}.")
