"""Which pixel values a network wants: known of keras.applications, in files of them too."""

# What keras.applications' own preprocess_input does, by the start of the model's name.
_SCALES = {
    "caffe": ("VGG", "ResNet50", "ResNet101", "ResNet152"),
    "torch": ("DenseNet", "VGG16_BN"),
    "symmetric": ("MobileNet", "Xception", "Inception", "NASNet"),
    "bytes": ("EfficientNet", "ConvNeXt", "MobileNetV3"),
}
SCALES = ("unit", "bytes", "symmetric", "torch", "caffe")


def application_scale(name: str) -> str:
    """Which pixel values a network by name wants; see `scale_pixels`."""
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
    """The pixel values that a network from a file wants, and what tells so; None: nothing does.

    Args:
        network: a Keras model. One that keras.applications made has a name of its own, and one
            that scales its pixels itself begins with a layer that does.
    """
    import keras

    parts = [x for x in network._flatten_layers() if isinstance(x, keras.Model)]
    layers = [x for x in network._flatten_layers() if not isinstance(x, keras.Model)]
    first = next((x for x in layers if not isinstance(x, keras.layers.InputLayer)), None)
    if isinstance(first, (keras.layers.Rescaling, keras.layers.Normalization)):
        return "bytes", f"its layer '{first.name}' scales them"
    for part in parts:
        plain = _plain(part.name)
        fits = [
            (len(start), start, scale)
            for scale, starts in _SCALES.items()
            for start in starts
            if plain.startswith(_plain(start))
        ]
        if fits:
            _, start, scale = max(fits)
            if start.startswith("ResNet") and plain.startswith(f"{_plain(start)}v2"):
                scale = "symmetric"
            return scale, f"it has '{part.name}', a name that keras.applications gives"
    return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def scale_pixels(pixels, scale: str):
    """Scales pixels of 0 to 255 inside the graph.

    Args:
        pixels: KerasTensor (batch, height, width, channels), float32.
        scale: "unit" (0 to 1), "bytes" (as they are), "symmetric" (-1 to 1), "torch" (0 to 1,
            then ImageNet's mean and deviation), "caffe" (BGR, ImageNet's mean subtracted).
    """
    import keras

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
