"""VGG-16 as the paper trains it."""

import keras
import numpy as np
import pytest

from packnet_tf.apps.images.pixel_scales import application_scale
from packnet_tf.apps.images.vgg import vgg16


def test_it_is_that_of_keras_with_dropout_added():
    ours = vgg16(32)
    theirs = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3))
    assert [v.shape for v in ours.weights] == [v.shape for v in theirs.weights]
    ours.set_weights(theirs.get_weights())
    pixels = np.random.default_rng(0).uniform(-100, 100, (2, 32, 32, 3)).astype("float32")
    assert np.array_equal(ours(pixels, training=False), theirs(pixels, training=False))
    assert [layer.rate for layer in ours.layers if isinstance(layer, keras.layers.Dropout)] == [
        0.5
    ] * 2
    assert application_scale("VGG16_FC") == application_scale("VGG16") == "caffe"


def test_it_takes_channels_last_whatever_keras_is_configured_to():
    keras.config.set_image_data_format("channels_first")
    try:
        assert vgg16(32).get_layer("block5_pool").output.shape == (None, 1, 1, 512)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_batch_normalisation_follows_every_convolution(tmp_path):
    model = vgg16(32, batch_norm=True)
    kinds = [type(layer).__name__ for layer in model.layers]
    places = [place for place, kind in enumerate(kinds) if kind == "Conv2D"]
    assert len(places) == 13
    assert all(kinds[p + 1 : p + 3] == ["BatchNormalization", "ReLU"] for p in places)
    assert application_scale("VGG16_BN") == "torch"
    path = tmp_path / "bn.weights.h5"
    model.save_weights(path)
    again = vgg16(32, batch_norm=True, weights=str(path))
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_imagenet_weights_with_batch_normalisation_are_nowhere_to_be_had():
    with pytest.raises(ValueError) as error:
        vgg16(224, batch_norm=True, weights="imagenet")
    assert str(error.value) == (
        "keras.applications has no ImageNet weights for VGG16_BN. Give the path of a Keras weights "
        "file (weights: vgg16_bn.weights.h5), or weights: none."
    )
