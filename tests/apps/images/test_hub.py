"""Backbones of KerasHub as trunks: pixels as their image converter says, pooled features."""

import sys

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.image_folders import write_place
from helpers.pack_helpers import logits, pack_task, run_python
from packnet_tf.apps.images import hub
from packnet_tf.apps.images.trunks import load_trunk
from packnet_tf.apps.main import main

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
SCALE, OFFSET = [0.02, 0.01, 0.03], [-0.5, -0.4, -0.3]


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """A folder with presets: a network with and without a converter, one of patches, pyramids."""
    library = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp("presets")
    net = library.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
        use_pre_activation=True,
    )  # fmt: skip
    net.save_to_preset(folder / "plain")
    converter = library.layers.ResNetImageConverter(image_size=(24, 40), scale=SCALE, offset=OFFSET)
    preprocessor = library.models.ResNetImageClassifierPreprocessor(image_converter=converter)
    preprocessor.save_to_preset(folder / "whole")
    net.save_to_preset(folder / "whole")
    patches = library.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=(8, 8), num_layers=1, num_heads=2, hidden_dim=8,
        mlp_dim=16, use_class_token=True,
    )  # fmt: skip
    patches.save_to_preset(folder / "patches")
    return folder, net, patches


@pytest.mark.slow
def test_pixels_are_scaled_as_the_image_converter_says(presets, capsys):
    folder, net, _ = presets
    trunk = load_trunk(str(folder / "whole"), image_size=32)
    assert "as its image converter says" in capsys.readouterr().out
    expected = np.mean(net(PIXELS * SCALE + OFFSET), (1, 2))
    np.testing.assert_allclose(logits(trunk, PIXELS), expected, rtol=1e-4, atol=1e-5)
    assert load_trunk(str(folder / "whole")).input_shape == (None, 24, 40, 3)
    other = load_trunk(str(folder / "whole"), image_size=32, scale="bytes")
    expected = np.mean(net(PIXELS), (1, 2))
    np.testing.assert_allclose(logits(other, PIXELS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_without_an_image_converter_what_is_assumed_is_said(presets, capsys):
    folder, net, patches = presets
    trunk = load_trunk(str(folder / "plain"), image_size=32)
    assert "unit, since nothing in it says otherwise" in capsys.readouterr().out
    expected = np.mean(net(PIXELS / 255), (1, 2))
    np.testing.assert_allclose(logits(trunk, PIXELS), expected, rtol=1e-4, atol=1e-5)
    trunk = load_trunk(str(folder / "patches"))
    expected = np.mean(patches(PIXELS / 255), 1)
    np.testing.assert_allclose(logits(trunk, PIXELS), expected, rtol=1e-4, atol=1e-5)
    random = load_trunk(str(folder / "patches"), weights="none")
    assert not np.allclose(logits(random, PIXELS), expected, atol=1e-3)


@pytest.mark.slow
def test_the_last_feature_map_of_a_pyramid_is_taken(presets, monkeypatch):
    _, net, _ = presets
    pyramid = keras.Model(net.input, net.pyramid_outputs)
    monkeypatch.setattr(hub, "is_preset", lambda source: True)
    monkeypatch.setattr(hub, "load_preset", lambda source, weights: hub.Preset(pyramid))
    trunk = load_trunk("pyramid", image_size=32)
    expected = np.mean(pyramid(PIXELS / 255)["P3"], (1, 2))
    np.testing.assert_allclose(logits(trunk, PIXELS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "patches"])
def test_a_pack_of_a_preset_is_read_by_a_process_that_does_not_know_kerashub(
    presets, name, tmp_path
):
    net = packnet_tf.PackNet(load_trunk(str(presets[0] / name)))
    assert len(net.state.weights) > 4
    pack_task(net, "one", 0.5)
    net.save(tmp_path / "pack.keras")
    shape = net.state.trunk.input_shape[1:]
    np.save(tmp_path / "x.npy", np.ones((1, *shape), "float32"))
    expected = net.task_model("one").predict(np.ones((1, *shape), "float32"), verbose=0)
    done = run_python(
        """
        import sys, numpy as np, packnet_tf
        net = packnet_tf.load(sys.argv[1] + "/pack.keras")
        x = np.load(sys.argv[1] + "/x.npy")
        np.save(sys.argv[1] + "/y.npy", net.task_model("one").predict(x, verbose=0))
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected)


@pytest.mark.slow
def test_packnet_train_begins_from_a_preset(presets, tmp_path, capsys):
    place = write_place(tmp_path)
    status = main(
        [
            "train", str(place / "garden.keras"), "--task=shades", f"--data={place / 'shades'}",
            f"--trunk={presets[0] / 'plain'}", "--image-size=16", "--epochs=2", "--adopt=none",
        ]
    )  # fmt: skip
    assert status == 0, capsys.readouterr().err
    assert packnet_tf.load(place / "garden.keras").tasks == ("shades",)


def test_presets_are_refused_with_a_remedy_where_kerashub_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "keras_hub", None)  # the import then fails
    (tmp_path / "config.json").write_text("{}")
    for source in ("hf://someone/resnet", "kaggle://keras/vit/keras/vit_base", str(tmp_path)):
        with pytest.raises(ImportError, match="pip install keras-hub") as error:
            load_trunk(source)
        assert source in str(error.value)
    with pytest.raises(ValueError, match=r"a preset of KerasHub \(pip install keras-hub\)"):
        load_trunk("resnet_18_imagenet")


def test_a_folder_that_is_no_preset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="save_to_preset"):
        load_trunk(str(tmp_path))


@pytest.mark.slow
def test_what_cannot_be_loaded_is_said_with_what_was_meant(presets, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"Cannot load the preset .* with keras-hub \d"):
        load_trunk(str(tmp_path))
    with pytest.raises(ValueError, match="Did you mean resnet_18_imagenet"):
        load_trunk("resnet18_imagenet")
    with pytest.raises(ValueError, match=r"--trunk_weights=other\.h5"):
        load_trunk(str(presets[0] / "plain"), weights="other.h5")
