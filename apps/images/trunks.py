"""Trunks for image tasks: from a file, keras.applications, KerasHub, or our own VGG-16.

The trunk takes RGB (or grey) pixels of 0 to 255, scales them for its backbone, and gives one
feature vector per image. So every model exported from it takes raw pixels.
"""

import dataclasses
import math

import numpy as np

from packnet_tf.apps import cli
from packnet_tf.apps.images import hub
from packnet_tf.apps.images.model_files import SUFFIXES, read_model
from packnet_tf.apps.images.pixel_scales import (
    application_scale,
    integers_of,
    rescaled,
    scale_by_layers,
    scale_of,
    scale_pixels,
)
from packnet_tf.backend.keras_internals import operation_of, output_within

# Arguments for `vgg.vgg16`, by name of the trunk.
OWN = {"VGG16_FC": {"batch_norm": False}, "VGG16_BN": {"batch_norm": True}}


@cli.channels_last()
def load_trunk(
    source: str,
    image_size: int | None = None,
    output: str | None = None,
    scale: str | None = None,
    weights: str = "imagenet",
):
    """Builds a trunk from pixels of 0 to 255 to a feature vector.

    Args:
        source: path of a `.keras` or `.h5` model; the name of a keras.applications model, or
            VGG16_FC or VGG16_BN, see `vgg.vgg16`; or a preset, see `hub.load_preset`.
        image_size: height and width in pixels; default the model's input size, that of its preset's
            image converter, or 224.
        output: name of the layer whose output is the features, to leave out a model's own head;
            default the last layer of a file, or the last feature map of an application or preset.
        scale: see `scale_pixels`; default as the application expects, also in a file, or as the
            preset's image converter says, or "bytes" for a model that takes integers, or "unit".
        weights: for applications and presets: "imagenet" (those of the preset), "none" (random),
            or, for applications, a path.

    Returns:
        A Functional `keras.Model`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the source is a preset, and keras-hub is not installed.
        ValueError: there is no such application, preset or layer, the model does not take images,
            or takes them as integers, which `scale` would make fractions of.
    """
    import keras

    preset = _preset(source, weights)
    backbone = preset.backbone if preset else _network(source, image_size, weights, output)
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
    usual = (preset and preset.image_size) or (224, 224)
    height, width = (
        side or image_size or size for side, size in zip(shape[1:3], usual, strict=True)
    )
    if image_size is not None and (height, width) != (image_size, image_size):
        raise ValueError(
            f"The trunk '{source}' takes images of {height} x {width} pixels, not {image_size}; "
            "leave --image_size out."
        )
    _check_scale(source, backbone, scale)
    pixels = keras.Input((height, width, shape[-1]), name="image")
    if preset and scale is None and preset.says_pixels:
        print(
            f"Pixel values for '{source}': as its image converter says, scale {preset.scale} and "
            f"offset {preset.offset}.",
            flush=True,
        )
        scaled = rescaled(pixels, preset.scale, preset.offset)
    else:
        scaled = scale_pixels(pixels, scale or _known_scale(source, backbone, preset))
    features = _last_level(backbone(scaled))
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    elif len(features.shape) == 3:  # a vector per patch of the image
        features = keras.layers.GlobalAveragePooling1D(name="pool")(features)
    if len(features.shape) != 2:
        raise ValueError(
            f"The trunk '{source}' ends in outputs of shape {features.shape}; expected features "
            "(batch, n), a feature map (batch, height, width, n) or patches (batch, patches, n). "
            "Name another layer with --trunk_output."
        )
    return keras.Model(pixels, features, name="trunk")


def _preset(source: str, weights: str) -> hub.Preset | None:
    """Loads the preset that a source names; None if it is a file or an application."""
    if source.endswith(SUFFIXES) or source in applications():
        return None
    if not hub.is_preset(source) and source not in hub.built_in():
        raise hub.unknown(source, applications())
    if weights not in ("imagenet", "none"):
        raise ValueError(
            f"The preset '{source}' has its weights; --trunk_weights={weights} is for models of "
            "keras.applications. Leave it out, or write --trunk_weights=none for random ones."
        )
    preset = hub.load_preset(source, weights == "imagenet")
    import keras

    network = preset.backbone  # as an ordinary model, without the class of KerasHub
    plain = keras.Model(network.input, network.output, name=network.name)
    return dataclasses.replace(preset, backbone=plain)


def _last_level(features):
    """Returns the last feature map of a network that returns several, by level."""
    if not isinstance(features, (dict, list, tuple)):
        return features
    levels = list(features.values()) if isinstance(features, dict) else list(features)
    return min(levels, key=lambda level: math.prod(level.shape[1:-1]))


def _known_scale(source: str, backbone, preset: hub.Preset | None) -> str:
    if not preset and not source.endswith(SUFFIXES):
        return application_scale(source)
    known = scale_by_layers(backbone) if preset else scale_of(backbone)
    scale, why = known or ("unit", "nothing in it says otherwise")
    print(
        f"Pixel values for '{source}': {scale}, since {why}; --pixel_scale={scale} says so.",
        flush=True,
    )
    return scale


def _check_scale(source: str, backbone, scale: str | None) -> None:
    """Refuses a pixel scale that makes fractions for a network that takes integers."""
    taken = integers_of(backbone)
    if taken is None:
        return
    if np.iinfo(taken).max < 255:
        raise ValueError(
            f"The trunk '{source}' takes {taken}, which does not hold pixels of 0 to 255. Save it "
            "with an input of uint8 or float32."
        )
    if scale not in (None, "bytes"):
        raise ValueError(
            f"The trunk '{source}' takes {taken}, and the pixel scale {scale!r} is of fractions, "
            "of which integers would keep nothing. Leave --pixel_scale out, or write "
            "--pixel_scale=bytes."
        )


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


@cli.channels_last()
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

    if not source.endswith(SUFFIXES) and source not in applications():
        raise ValueError(
            f"'{source}' is neither a file nor a model of keras.applications, and only those have "
            "a classifier that can be the head of a task. Leave head: pretrained out."
        )
    network = _network(source, image_size, weights, output)
    last = network.layers[-1]
    if not isinstance(last, keras.layers.Dense) or last.input is not output_within(
        network, network.get_layer(output)
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


def applications() -> list[str]:
    """Returns the networks that are known by name: ours, and those of keras.applications."""
    import keras

    return [*OWN, *(entry for entry in dir(keras.applications) if entry[0].isupper())]


def _application(name: str, image_size: int | None, weights: str, output: str | None):
    import keras

    size = image_size or 224
    weights = None if weights == "none" else weights
    if name in OWN:
        from packnet_tf.apps.images.vgg import vgg16

        whole = vgg16(size, **OWN[name], weights=weights)
        return whole if output else _up_to(whole, "fc2_dropout")
    build = getattr(keras.applications, name)
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
    found = output_within(backbone, backbone.get_layer(output))
    return keras.Model(backbone.inputs, found, name=backbone.name)
