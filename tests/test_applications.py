"""A network of every family of keras.applications packs, and stays equal all the way."""

import keras
import numpy as np
import pytest

import packnet_tf
from packnet_tf.export import export_onnx

PACKED_LAYERS = {
    "VGG16": 13,
    "ResNet50": 53,
    "ResNet50V2": 53,
    "DenseNet121": 120,
    "MobileNet": 27,
    "MobileNetV2": 52,
    "MobileNetV3Small": 52,
    "EfficientNetB0": 81,
    "EfficientNetV2B0": 91,
    "InceptionV3": 94,
    "InceptionResNetV2": 244,
    "Xception": 74,
    "NASNetMobile": 356,
    "ConvNeXtTiny": 58,
}
# The least pixels that they take; the others take 32.
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
# The whole way takes them a minute or more, and other networks go it with the same layers.
PACKED_ALONE = (
    *("ResNet50", "ResNet50V2", "DenseNet121", "EfficientNetV2B0"),
    *("InceptionV3", "InceptionResNetV2", "Xception", "NASNetMobile"),
)


def network(name):
    """The network, and two images for it."""
    size = SIZES.get(name, 32)
    trunk = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
    )
    x = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    return trunk, x


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKED_ALONE)
def test_a_network_answers_as_before_once_it_is_packed(name):
    trunk, x = network(name)
    net = packnet_tf.PackNet(trunk)
    assert len(net.capacity()) == PACKED_LAYERS[name]
    model = net.add_task("first", keras.layers.Dense(3))
    assert np.array_equal(model.trunk(x, training=False), trunk(x, training=False))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "MobileNetV2" else pytest.mark.slow)
        for name in PACKED_LAYERS
        if name not in PACKED_ALONE
    ],
)
def test_the_first_task_stays_bit_for_bit_the_same_through_a_second_and_a_file(name, tmp_path):
    trunk, x = network(name)
    net = packnet_tf.PackNet(trunk)
    logits = None
    for task in ("first", "second"):
        model = net.add_task(task, keras.layers.Dense(3))
        if logits is None:
            assert np.array_equal(model.trunk(x, training=False), trunk(x, training=False))
        optimizer = keras.optimizers.AdamW(0.001, weight_decay=0.1, use_ema=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, run_eagerly=True)
        claimed = {path: entry["claimed"] for path, entry in net.capacity().items()}
        model.train_on_batch(x, np.arange(2))
        assert net.prune(0.5) == {path: round(0.5 * count) for path, count in claimed.items()}
        net.commit()
        if logits is None:
            first, logits = model, np.array(model(x, training=False))
    capacity = net.capacity()
    assert len(capacity) == PACKED_LAYERS[name]
    assert capacity.sum()["total"] > 0.9 * trunk.count_params()
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert loaded.capacity() == capacity
    for model in (first, net.unpack("first"), loaded.task_model("first")):
        assert np.array_equal(model(x, training=False), logits)
    assert export_onnx(loaded, "first", tmp_path / "m.onnx", samples=x) < 1e-5
