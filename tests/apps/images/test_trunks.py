"""Trunks for images: raw pixels in, one feature vector out."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

import packnet_tf
from helpers.cases import slow
from helpers.image_folders import task_plan, write_task, write_trunk
from helpers.pack_helpers import mlp_trunk, packed
from packnet_tf.apps.images.pixel_scales import application_scale, scale_of, scale_pixels
from packnet_tf.apps.images.trunks import load_trunk, pretrained_head
from packnet_tf.apps.packs.training import train
from packnet_tf.export import export_all, export_bundle


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("VGG16", "vgg16"),
        ("ResNet50", "resnet"),
        ("ResNet50V2", "resnet_v2"),
        ("DenseNet121", "densenet"),
        ("MobileNet", "mobilenet"),
        ("MobileNetV2", "mobilenet_v2"),
        ("MobileNetV3Small", "mobilenet_v3"),
        ("EfficientNetB0", "efficientnet"),
        ("EfficientNetV2B0", "efficientnet_v2"),
        ("ConvNeXtTiny", "convnext"),
        ("InceptionV3", "inception_v3"),
        ("InceptionResNetV2", "inception_resnet_v2"),
        ("Xception", "xception"),
        ("NASNetMobile", "nasnet"),
    ],
)
def test_pixels_are_scaled_as_keras_applications_do(name, module):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 5, 3)).astype("float32")
    inputs = keras.Input((5, 5, 3))
    scaled = keras.Model(inputs, scale_pixels(inputs, application_scale(name)))(pixels)
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50", "ResNet50V2",
     "VGG16", "ConvNeXtTiny", *slow("NASNetMobile", "DenseNet121", "InceptionV3")],
)  # fmt: skip
def test_a_network_of_keras_applications_is_known_in_a_file_too(name):
    network = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(96, 96, 3)
    )
    within = keras.Sequential([keras.Input((96, 96, 3)), network, keras.layers.Flatten()])
    assert scale_of(network)[0] == application_scale(name)
    assert scale_of(within)[0] == application_scale(name)


def scaled_by(*before, shape=(16, 16, 3), name=None):
    """A network that does something to its pixels before its first weights."""
    inputs = x = keras.Input(shape)
    for step in before:
        x = step(x)
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(x), name=name)


@pytest.mark.parametrize(
    ("network", "scale"),
    [
        (scaled_by(keras.layers.Rescaling(1 / 255)), "bytes"),
        (scaled_by(keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 127.5, -1)), "bytes"),
        (scaled_by(keras.Sequential([keras.layers.Rescaling(1 / 255)])), "bytes"),
        (scaled_by(keras.layers.Rescaling(2.0, offset=-1.0)), "unit"),
        (scaled_by(keras.layers.Normalization(mean=[120.0] * 3, variance=[9.0] * 3)), "bytes"),
        (scaled_by(keras.layers.Normalization(mean=[0.5] * 3, variance=[0.1] * 3)), "unit"),
        (scaled_by(lambda x: x / 127.5 - 1, name="mobilenetv2_1.00"), "bytes"),
        (scaled_by(shape=(16, 16, 1), name="vgg_small"), None),
        (scaled_by(name="vgg_small"), "caffe"),
        (scaled_by(name="convnext_own"), "torch"),
        (scaled_by(), None),
    ],
)
def test_what_a_network_does_to_its_pixels_tells_which_it_wants(network, scale):
    found = scale_of(network)
    assert (found and found[0]) == scale


def test_the_pixel_values_of_a_file_are_said(tmp_path, capsys):
    model = scaled_by(keras.layers.Rescaling(1 / 255))
    model.save(tmp_path / "own.keras")
    trunk = load_trunk(str(tmp_path / "own.keras"))
    assert "Pixel values for" in capsys.readouterr().out
    pixels = np.full((1, 16, 16, 3), 255, "float32")
    expected = np.mean(model(pixels), (1, 2))
    np.testing.assert_allclose(trunk(pixels), expected, rtol=1e-5, atol=1e-6)
    plain = load_trunk(str(write_trunk(tmp_path / "plain.keras")), output="features")
    assert "unit, since nothing in it says otherwise" in capsys.readouterr().out
    assert plain.get_layer("scale_pixels").scale == 1 / 255
    with pytest.raises(ValueError, match="The pixel scale 'torch' is for RGB"):
        scale_pixels(keras.Input((8, 8, 1)), "torch")


def write_camera(path, dtype):
    """A network that takes pixels of 0 to 255 in a dtype, and the same network in memory."""
    inputs = keras.Input((16, 16, 3), dtype=dtype, name="image")
    x = keras.ops.cast(inputs, "float32") / 255
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="camera")
    model.save(path)
    return model


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_a_trunk_that_takes_integers_sees_pixels_of_0_to_255(dtype, tmp_path, capsys):
    path = str(tmp_path / "camera.keras")
    model = write_camera(path, dtype)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3))
    expected = np.asarray(model(pixels.astype(dtype)))
    for scale in (None, "bytes"):
        assert np.array_equal(load_trunk(path, scale=scale)(pixels.astype("float32")), expected)
    assert f"bytes, since it takes {dtype}; --pixel_scale=bytes says so" in capsys.readouterr().out
    for scale in ("unit", "symmetric", "torch", "caffe"):
        text = f"takes {dtype}, and the pixel scale '{scale}' is of fractions, .* Leave --pixel_sc"
        with pytest.raises(ValueError, match=text):
            load_trunk(path, scale=scale)


def test_a_trunk_whose_integers_hold_no_pixels_is_refused(tmp_path):
    write_camera(tmp_path / "camera.keras", "int8")
    with pytest.raises(ValueError, match="takes int8, which does not hold pixels of 0 to 255"):
        load_trunk(str(tmp_path / "camera.keras"))


@pytest.mark.slow
def test_a_trunk_that_takes_integers_is_trained_and_exported_like_one_of_floats(tmp_path):
    write_task(tmp_path / "shades")
    reports, nets = [], []
    for dtype in ("uint8", "float32"):
        keras.utils.set_random_seed(3)
        trunk, pack = tmp_path / f"{dtype}.keras", str(tmp_path / dtype / "pack.keras")
        write_camera(trunk, dtype)
        given = {"pack": pack, "trunk": str(trunk), "trunk_output": None, "pixel_scale": "bytes"}
        (tmp_path / dtype).mkdir()
        reports.append(train(task_plan(tmp_path, **given, flip=True, adopt="none")))
        nets.append(packnet_tf.load(pack))
        export_all(nets[-1], tmp_path / dtype / "onnx", verbose=False)  # compares with Keras
        export_bundle(nets[-1], tmp_path / dtype / "bundle", verbose=False)
    assert reports[0].accuracy == reports[1].accuracy
    for one, other in zip(*(net.task_model("shades").weights for net in nets), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def channels_first():
    """Keras as `"image_data_format": "channels_first"` in its keras.json sets it."""
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_trunks_take_channels_last_whatever_keras_is_configured_to(channels_first, tmp_path):
    inputs = keras.Input((16, 16, 3))
    last = keras.layers.Conv2D(6, 3, strides=3, data_format="channels_last", name="last")(inputs)
    model = keras.Model(inputs, last)
    model.save(tmp_path / "map.keras")
    trunk = load_trunk(str(tmp_path / "map.keras"), scale="bytes")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(trunk(pixels), np.mean(model(pixels), (1, 2)), rtol=1e-5)
    assert load_trunk("MobileNetV2", 32, weights="none").output_shape == (None, 1280)
    assert keras.config.image_data_format() == "channels_first"  # of the user's other code


@pytest.mark.parametrize("apart", [False, True])
def test_a_trunk_that_ends_in_a_classifier_is_warned_of(apart, tmp_path, capsys):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.Conv2D(4, 3)(inputs))
    soft = keras.layers.Dense(3, activation=None if apart else "softmax")(x)
    soft = keras.layers.Softmax()(soft) if apart else soft
    keras.Model(inputs, soft).save(tmp_path / "classifier.keras")
    load_trunk(str(tmp_path / "classifier.keras"))
    assert "ends in a classifier" in (said := capsys.readouterr().out)
    assert "Leave it out: --trunk_output=pool." in said
    load_trunk(str(tmp_path / "classifier.keras"), output="pool")
    assert "WARNING" not in capsys.readouterr().out
    keras.Model(inputs, keras.layers.Dense(3)(x)).save(tmp_path / "features.keras")
    load_trunk(str(tmp_path / "features.keras"))
    assert "WARNING" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_the_features_of_a_backbone_that_is_one_layer_of_a_classifier(kind, tmp_path, capsys):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    inner, outer = keras.Model(inputs, x, name="inner"), keras.Input((16, 16, 3))
    head = keras.layers.Dense(3, activation="softmax")
    whole = keras.Sequential([outer, inner, head])
    if kind == "functional":
        whole = keras.Model(outer, head(inner(outer)))
    whole.save(tmp_path / "whole.keras")
    load_trunk(str(tmp_path / "whole.keras"))
    assert "Leave it out: --trunk_output=inner." in capsys.readouterr().out
    trunk = load_trunk(str(tmp_path / "whole.keras"), output="inner", scale="bytes")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(trunk(pixels), inner(pixels))


def test_a_models_own_head_is_left_out(tmp_path):
    path = write_trunk(tmp_path / "small.keras")
    trunk = load_trunk(str(path), output="features")
    assert trunk.input_shape == (None, 16, 16, 3)
    assert trunk.output_shape == (None, 12)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    whole = keras.saving.load_model(path)
    features = keras.Model(whole.input, whole.get_layer("features").output)(pixels / 255)
    np.testing.assert_allclose(trunk(pixels), np.mean(features, (1, 2)), rtol=1e-4, atol=1e-5)


def test_an_application_becomes_a_trunk_that_packs():
    trunk = load_trunk("MobileNetV2", image_size=32, weights="none")
    assert trunk.output_shape == (None, 1280)
    net = packnet_tf.PackNet(trunk)
    assert "mobilenetv2_1.00_32/Conv_1" in net.capacity()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"source": "nowhere.keras"},
            r"There is no trunk 'nowhere.keras'\. Write the path of a .keras or .h5 model, or",
        ),
        (
            {"source": "MobileNetV9"},
            r"'MobileNetV9' is neither a .keras or .h5 file .* Did you mean MobileNetV2 or ",
        ),
    ],
)
def test_unknown_trunks_are_named(arguments, text):
    with pytest.raises((FileNotFoundError, ValueError), match=text):
        load_trunk(**arguments)


def test_a_preset_has_no_classifier_to_keep():
    with pytest.raises(ValueError, match="'resnet_18_imagenet' is neither a file nor a model of"):
        pretrained_head("resnet_18_imagenet", "stack3_block1_out")


def test_what_is_no_network_is_no_trunk(tmp_path):
    pack = str(tmp_path / "pack.keras")
    packed(mlp_trunk(), one=0.5).save(pack)
    with pytest.raises(ValueError) as error:
        load_trunk(pack)
    assert str(error.value) == (
        f"The trunk '{pack}' is to be a network, and holds a pack. To add tasks to it, write "
        "--pack."
    )
    layer = str(tmp_path / "layer.keras")
    keras.saving.save_model(keras.layers.Dense(3), layer)
    with pytest.raises(ValueError) as error:
        load_trunk(layer)
    assert str(error.value) == (
        f"The trunk '{layer}' is to be a network, and holds a saved Dense. Save a whole model."
    )
    (tmp_path / "text.keras").write_text("no network")
    with pytest.raises(ValueError, match=r"trunk '.*text\.keras', which an unknown program wrote"):
        load_trunk(str(tmp_path / "text.keras"))


@pytest.mark.parametrize("name", ["old.h5", "old.hdf5", "old.keras"])
def test_files_of_keras_2_are_read_whatever_their_suffix(name, tmp_path):
    """Keras 2 wrote HDF5, for a while into .keras files too."""
    write_trunk(tmp_path / "new.keras")
    model = keras.saving.load_model(tmp_path / "new.keras")
    model.save(tmp_path / "whole.h5")
    (tmp_path / "whole.h5").rename(tmp_path / name)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    expected = load_trunk(str(tmp_path / "new.keras"), output="features")(pixels)
    np.testing.assert_array_equal(
        load_trunk(str(tmp_path / name), output="features")(pixels), expected
    )


def test_a_file_that_keras_3_cannot_read_is_refused_in_two_lines_that_name_who_wrote_it(tmp_path):
    path = write_trunk(tmp_path / "odd.h5")
    with h5py.File(path, "a") as file:
        config = file.attrs["model_config"].replace("Conv2D", "LocallyConnected2D")
        file.attrs["model_config"], file.attrs["keras_version"] = config, "2.15.0"
    with pytest.raises(ValueError, match=r"odd.h5', which Keras 2\.15\.0 wrote, with Ker") as error:
        load_trunk(str(path))
    assert len(str(error.value).split("\n")) == 2
    assert len(str(error.value)) < 800
    with zipfile.ZipFile(tmp_path / "odd.keras", "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "2.13.1"}))
    with pytest.raises(ValueError, match=r"odd.keras', which Keras 2\.13\.1 wrote, with Keras"):
        load_trunk(str(tmp_path / "odd.keras"))


def test_unknown_layers_sizes_and_scales_are_named(tmp_path):
    path = str(write_trunk(tmp_path / "small.keras"))
    with pytest.raises(ValueError, match=r"has no layer 'top'\. Its last layers are: .*old_head"):
        load_trunk(path, output="top")
    with pytest.raises(ValueError, match="takes images of 16 x 16 pixels, not 32"):
        load_trunk(path, image_size=32)
    with pytest.raises(ValueError, match="There is no pixel scale 'half'; write one of unit,"):
        load_trunk(path, scale="half")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "flat.keras")
    with pytest.raises(ValueError, match=r"takes inputs of shape \(None, 4\); expected images"):
        load_trunk(str(tmp_path / "flat.keras"))
