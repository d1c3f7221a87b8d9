"""Trunks for image tasks: from a model file, from keras.applications, or our own VGG-16.

The trunk takes RGB (or grey) pixels of 0 to 255, scales them for its backbone, and gives one
feature vector per image. So every model exported from it takes raw pixels.
"""

from packnet_tf.apps.images.model_files import SUFFIXES, read_model
from packnet_tf.apps.images.pixel_scales import application_scale, scale_of, scale_pixels
from packnet_tf.backend.keras_internals import all_layers, operation_of

# Arguments for `vgg.vgg16`, by name of the trunk.
OWN = {"VGG16_FC": {"batch_norm": False}, "VGG16_BN": {"batch_norm": True}}


def is_trained(trunk) -> bool:
    """Whether a trunk's weights differ from their initial values.

    Training moves biases, gains and moving statistics away from their constant initial values. A
    trunk without any of these counts as trained.
    """
    found = False
    for layer in all_layers(trunk):
        for name in ("bias", "beta", "gamma", "moving_mean", "moving_variance"):
            variable, start = (
                getattr(layer, name, None),
                getattr(layer, f"{name}_initializer", None),
            )
            if variable is None or type(start).__name__ not in ("Zeros", "Ones"):
                continue
            found = True
            if (variable.numpy() != float(type(start).__name__ == "Ones")).any():
                return True
    return not found


def load_trunk(
    source: str,
    image_size: int | None = None,
    output: str | None = None,
    scale: str | None = None,
    weights: str = "imagenet",
):
    """Builds a trunk from pixels of 0 to 255 to a feature vector.

    Args:
        source: path of a `.keras` or `.h5` model, or the name of a keras.applications model, or
            VGG16_FC or VGG16_BN, see `vgg.vgg16`.
        image_size: height and width in pixels; default the model's input size, or 224.
        output: name of the layer whose output is the features, to leave out a model's own head;
            default the last layer of a file, or the last feature map of an application.
        scale: see `scale_pixels`; default as the application expects, also in a file, or "unit".
        weights: for applications: "imagenet", "none" (random), or a path.

    Returns:
        A Functional `keras.Model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such application or layer, or the model does not take images.
    """
    import keras

    backbone = _network(source, image_size, weights, output)
    if scale is None:
        scale = _known_scale(source, backbone)
    shape = backbone.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] not in (1, 3):
        raise ValueError(
            f"The trunk '{source}' takes inputs of shape {shape}; expected images, "
            "(batch, height, width, 3) or (batch, height, width, 1)."
        )
    if output is not None:
        backbone = _up_to(backbone, output)
    elif before := _before_classifier(backbone):
        print(
            f"WARNING: the trunk '{source}' ends in a classifier, whose probabilities tell little "
            f"of other classes. Leave it out: --trunk_output={before}.",
            flush=True,
        )
    height, width = (side or image_size or 224 for side in shape[1:3])
    if image_size is not None and (height, width) != (image_size, image_size):
        raise ValueError(
            f"The trunk '{source}' takes images of {height} x {width} pixels, not {image_size}; "
            "leave --image_size out."
        )
    pixels = keras.Input((height, width, shape[-1]), name="image")
    features = backbone(scale_pixels(pixels, scale))
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    if len(features.shape) != 2:
        raise ValueError(
            f"The trunk '{source}' ends in outputs of shape {features.shape}; expected features "
            "(batch, n) or a feature map (batch, height, width, n). Name another layer with "
            "--trunk_output."
        )
    return keras.Model(pixels, features, name="trunk")


def _known_scale(source: str, backbone) -> str:
    if not source.endswith(SUFFIXES):
        return application_scale(source)
    scale, why = scale_of(backbone) or ("unit", "nothing in it says otherwise")
    print(
        f"Pixel values for '{source}': {scale}, since {why}; --pixel_scale={scale} says so.",
        flush=True,
    )
    return scale


def _before_classifier(network) -> str | None:
    """Returns the layer before a network's final softmax classifier; None if it has none."""
    import keras

    last, soft = network.layers[-1], False
    while isinstance(last, (keras.layers.Dense, keras.layers.Softmax, keras.layers.Activation)):
        soft |= isinstance(last, keras.layers.Softmax)
        soft |= getattr(last, "activation", None) is keras.activations.softmax
        before = operation_of(last.input)
        if isinstance(last, keras.layers.Dense):
            return before.name if soft else None
        last = before
    return None


def pretrained_head(
    source: str, output: str, image_size: int | None = None, weights: str = "imagenet"
):
    """Returns the classifier of a pretrained network, as the head of the task it was trained on.

    Args:
        source, image_size, weights: as for `load_trunk`.
        output: name of the trunk's last layer; the classifier must be the Dense after it.

    Returns:
        A built `keras.layers.Dense` that gives logits.

    Raises:
        ValueError: the network does not end in a Dense layer on that output.
    """
    import keras

    network = _network(source, image_size, weights, output)
    last = network.layers[-1]
    if (
        not isinstance(last, keras.layers.Dense)
        or last.input is not network.get_layer(output).output
    ):
        raise ValueError(
            f"'{source}' does not end in a Dense layer on '{output}', but in {type(last).__name__} "
            f"'{last.name}': its classifier cannot be the head of a task. Leave head: pretrained "
            "out, or name the layer before its classifier as output."
        )
    head = keras.layers.Dense(last.units, use_bias=last.use_bias, name="pretrained_head")
    head.build(last.input.shape)
    head.set_weights(last.get_weights())
    return head


def _network(source: str, image_size: int | None, weights: str, output: str | None):
    """Loads a network by file or name, with its classifier if `output` is a layer of that."""
    import keras

    if not source.endswith(SUFFIXES):
        return _application(source, image_size, weights, output)
    from packnet_tf.tasks.storage import Archive

    found = read_model(source)
    if not isinstance(found, keras.Model):
        what = (
            "a pack. To add tasks to it, write --pack"
            if isinstance(found, Archive)
            else (f"a saved {type(found).__name__}. Save a whole model")
        )
        raise ValueError(f"The trunk '{source}' is to be a network, and holds {what}.")
    return found


def _application(name: str, image_size: int | None, weights: str, output: str | None):
    import keras

    size = image_size or 224
    weights = None if weights == "none" else weights
    if name in OWN:
        from packnet_tf.apps.images.vgg import vgg16

        whole = vgg16(size, **OWN[name], weights=weights)
        return whole if output else _up_to(whole, "fc2_dropout")
    build = getattr(keras.applications, name, None)
    if not callable(build):
        known = [entry for entry in dir(keras.applications) if entry[0].isupper()]
        raise ValueError(
            f"'{name}' is neither a .keras or .h5 file nor a model of keras.applications, which "
            f"are: {', '.join(known)}."
        )
    if output is not None and not _is_within(build, output, size):
        return build(include_top=True, weights=weights, input_shape=(size, size, 3))
    return build(include_top=False, weights=weights, input_shape=(size, size, 3))


def _is_within(build, output: str, size: int) -> bool:
    """Whether an application without its classifier has the layer `output`."""
    layers = build(include_top=False, weights=None, input_shape=(size, size, 3)).layers
    return output in [layer.name for layer in layers]


def _up_to(backbone, output: str):
    import keras

    names = [layer.name for layer in backbone.layers]
    if output not in names:
        raise ValueError(
            f"The trunk has no layer '{output}'. Its last layers are: {', '.join(names[-12:])}."
        )
    return keras.Model(backbone.inputs, backbone.get_layer(output).output, name=backbone.name)
