"""What an exported file takes and answers with: pictures, probabilities, the leading classes."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnxruntime.quantization import quant_pre_process
from PIL import Image

import packnet_tf
from helpers.export_helpers import answer, answers
from helpers.pack_helpers import conv_trunk, logits, mlp_trunk, packed
from packnet_tf.export import export_all, export_onnx, verify

SIDE = 16


def picture_net(channels=3):
    inputs = keras.Input((SIDE, SIDE, channels), name="image")
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(inputs)
    net = packed(keras.Model(inputs, layers.Flatten()(x), name="trunk"), one=0.5, two=0)
    net.notes["pixel_range"] = "0,1"
    return net


@pytest.fixture(scope="module")
def net():
    return picture_net()


def pictures(height=SIDE, width=SIDE, channels=3, count=3):
    """Smooth ones, as photographs are."""
    small = np.random.default_rng(1).integers(0, 256, (count, 5, 5, channels)).astype(np.uint8)
    return np.stack([resized(picture, height, width) for picture in small])


def resized(picture, height, width):
    image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, picture.shape[-1])


def _chance(features):
    return layers.Dense(3, activation="softmax")(features)


PROBABILITIES = {
    "one output of two": lambda x: [_chance(x), layers.Dense(4)(x)],
    "an average of two": lambda x: layers.average([_chance(x), _chance(x)]),
    "clipped": lambda x: keras.ops.clip(_chance(x), 1e-6, 1.0),
    "reshaped": lambda x: layers.Reshape((1, 3))(_chance(x)),
    "by hand": lambda x: keras.ops.exp(x[:, :3]) / keras.ops.sum(keras.ops.exp(x[:, :3]), -1, True),
}


class TestUint8:
    """`preprocessing="uint8"`: decoded pictures of any size go in."""

    def test_pictures_of_the_trunks_size_answer_as_keras_on_scaled_pixels(self, net, tmp_path):
        assert export_onnx(net, "two", tmp_path / "m.onnx", preprocessing="uint8") < 1e-6
        x = pictures()
        expected = logits(net.task_model("two"), x.astype("float32") / 255)
        np.testing.assert_allclose(answer(tmp_path / "m.onnx", x), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("size", [(40, 64), (100, 20), (9, 12), (16, 33)])
    def test_other_sizes_are_resized_as_pillow_does(self, size, net, tmp_path):
        export_onnx(net, "two", tmp_path / "m.onnx", preprocessing="uint8")
        x = pictures(*size)
        small = np.stack([resized(picture, SIDE, SIDE) for picture in x])
        found, expected = (answer(tmp_path / "m.onnx", array) for array in (x, small))
        # Pillow and onnxruntime round some pixels to neighbouring grey levels.
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()

    @pytest.mark.parametrize("batch_size", [None, 3])
    def test_onnxruntimes_symbolic_shape_inference_takes_the_file(self, batch_size, net, tmp_path):
        """It refuses a Resize with `axes`; onnxslim gives such a file wrong shapes."""
        given, taken = tmp_path / "m.onnx", tmp_path / "taken.onnx"
        export_onnx(net, "two", given, preprocessing="uint8", batch_size=batch_size)
        quant_pre_process(given, taken)
        rows = onnx.load(taken).graph.input[0].type.tensor_type.shape.dim[0]
        assert (rows.dim_value or rows.dim_param) == (batch_size or "batch")
        x = pictures(40, 64)
        np.testing.assert_allclose(answer(taken, x), answer(given, x), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("batch_size", [None, 3])
    def test_images_are_resized_along_height_and_width_alone(self, batch_size, net, tmp_path):
        """All four sizes are in the file; a Resize of these two axes gives the same bits."""
        given, of_axes = tmp_path / "m.onnx", tmp_path / "axes.onnx"
        export_onnx(net, "two", given, preprocessing="uint8", batch_size=batch_size)
        model = onnx.load(given)
        [resize] = [node for node in model.graph.node if node.op_type == "Resize"]
        resize.input[3] = "two_sizes"
        resize.attribute.append(onnx.helper.make_attribute("axes", [1, 2]))
        sizes = np.array([SIDE, SIDE], np.int64)
        model.graph.initializer.append(onnx.numpy_helper.from_array(sizes, "two_sizes"))
        onnx.save(model, of_axes)
        x = pictures(40, 64)
        assert np.array_equal(answer(given, x), answer(of_axes, x))

    def test_mean_std_and_range_are_applied_in_that_order(self, net, tmp_path):
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
        export_onnx(
            net, "one", tmp_path / "m.onnx", preprocessing="uint8", pixel_range=(-1, 1), mean=mean,
            std=std,
        )  # fmt: skip
        x = pictures()
        scaled = (x.astype("float64") / 255 * 2 - 1 - mean) / std
        expected = logits(net.task_model("one"), scaled.astype("float32"))
        np.testing.assert_allclose(answer(tmp_path / "m.onnx", x), expected, rtol=1e-4, atol=1e-4)

    def test_channels_may_come_in_the_order_of_opencv(self, net, tmp_path):
        export_onnx(net, "one", tmp_path / "rgb.onnx", preprocessing="uint8")
        export_onnx(net, "one", tmp_path / "bgr.onnx", preprocessing="uint8", channel_order="bgr")
        x = pictures()
        assert np.array_equal(
            answer(tmp_path / "rgb.onnx", x), answer(tmp_path / "bgr.onnx", x[..., ::-1])
        )
        facts = onnx.load(tmp_path / "bgr.onnx").metadata_props
        assert {p.key: p.value for p in facts}["channel_order"] == "bgr"

    def test_grey_pictures_have_one_channel(self, tmp_path):
        net = picture_net(channels=1)
        assert export_onnx(net, "one", tmp_path / "m.onnx", preprocessing="uint8") < 1e-6
        assert answer(tmp_path / "m.onnx", pictures(30, 40, 1)).shape == (3, 3)

    def test_the_input_says_so(self, net, tmp_path):
        manifest = export_all(net, tmp_path, preprocessing="uint8")
        [entry] = manifest["tasks"][0]["inputs"]
        assert entry == {"name": "image", "shape": [None, None, None, 3], "dtype": "uint8"}
        said = manifest["tasks"][0]["preprocessing"]
        assert (said["height"], said["width"], said["low"], said["high"]) == (SIDE, SIDE, 0.0, 1.0)
        assert manifest["tasks"][0]["opset"] == 18

    @pytest.mark.parametrize("name", ["resized", "scaled_pixels", "scaled_sizes", "pixel_floats"])
    def test_the_input_may_have_any_name(self, name, net, tmp_path):
        export_onnx(net, "two", tmp_path / "m.onnx", preprocessing="uint8")
        export_onnx(net, "two", tmp_path / "n.onnx", preprocessing="uint8", input_names=[name])
        assert [entry.name for entry in onnx.load(tmp_path / "n.onnx").graph.input] == [name]
        x = pictures(20, 30)
        assert np.array_equal(answer(tmp_path / "m.onnx", x), answer(tmp_path / "n.onnx", x))

    @pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
    def test_trunks_that_take_uint8_answer_as_keras(self, precision, tmp_path):
        inputs = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
        x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255.0)(inputs))
        net = packed(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)), one=0.5)
        net.notes["pixel_range"] = "0,255"
        path = tmp_path / "m.onnx"
        export_onnx(net, "one", path, preprocessing="uint8", precision=precision)
        expected = logits(net.task_model("one"), pictures())
        far = {"float32": 1e-5, "float16": 1e-2, "int8": 0.2}[precision]
        assert np.abs(answer(path, pictures()) - expected).max() < far * np.abs(expected).max()

    def test_what_it_cannot_do_is_said(self, net, tmp_path):
        path = tmp_path / "m.onnx"
        words = packed(mlp_trunk(), one=0.5)
        with pytest.raises(ValueError, match=r"is for one image input .*; this model takes"):
            export_onnx(words, "one", path, preprocessing="uint8")
        with pytest.raises(
            ValueError, match=r'opset is 18 to 18 with preprocessing="uint8".*; got 15'
        ):
            export_onnx(net, "one", path, preprocessing="uint8", opset=15)
        with pytest.raises(ValueError, match=r"mean is one number, or one per channel \(3\); got"):
            export_onnx(net, "one", path, preprocessing="uint8", mean=(1, 2))
        with pytest.raises(ValueError, match=r"std is finite and not 0, because it divides; got 0"):
            export_onnx(net, "one", path, preprocessing="uint8", std=0)
        silent = picture_net()
        del silent.notes["pixel_range"]
        with pytest.raises(ValueError, match=r"needs pixel_range, .*; the pack"):
            export_onnx(silent, "one", path, preprocessing="uint8")
        with pytest.raises(ValueError, match=r"preprocessing='jpeg' is not known .* write pre"):
            export_onnx(net, "one", path, preprocessing="jpeg")
        assert list(tmp_path.iterdir()) == []


class TestOutputs:
    """Logits, probabilities, or the leading classes."""

    def test_probabilities_are_the_softmax_of_the_logits(self, net, tmp_path):
        export_onnx(net, "one", tmp_path / "l.onnx")
        export_onnx(net, "one", tmp_path / "p.onnx", outputs="probabilities")
        export_onnx(net, "one", tmp_path / "s.onnx", softmax=True)
        x = pictures().astype("float32") / 255
        expected = np.exp(answer(tmp_path / "l.onnx", x).astype("float64"))
        expected /= expected.sum(-1, keepdims=True)
        found = answer(tmp_path / "p.onnx", x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert (tmp_path / "p.onnx").read_bytes() == (tmp_path / "s.onnx").read_bytes()

    def test_top_k_names_the_leading_classes_and_their_probabilities(self, net, tmp_path):
        difference = export_onnx(net, "two", tmp_path / "k.onnx", outputs="top_k", top_k=2)
        assert difference < 1e-5
        export_onnx(net, "two", tmp_path / "p.onnx", outputs="probabilities")
        x = pictures(count=9).astype("float32") / 255
        chances = answer(tmp_path / "p.onnx", x)
        classes, top = answers(tmp_path / "k.onnx", x)
        assert (classes.dtype, top.dtype) == (np.int64, np.float32)
        assert np.array_equal(classes, np.argsort(-chances, axis=-1, kind="stable")[:, :2])
        assert np.array_equal(top, -np.sort(-chances, axis=-1)[:, :2])
        session = onnxruntime.InferenceSession(str(tmp_path / "k.onnx"))
        names = [output.name for output in session.get_outputs()]
        assert names == ["top_classes", "top_probabilities"]

    def test_the_input_of_a_ranking_may_have_any_name(self, net, tmp_path):
        named = {"input_names": ["top_k_count"]}
        assert export_onnx(net, "one", tmp_path / "m.onnx", outputs="top_k", **named) < 1e-5
        x = pictures().astype("float32") / 255
        assert answers(tmp_path / "m.onnx", x)[0].shape == (3, 3)

    @pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
    def test_probabilities_of_a_heads_own_are_given_as_they_are(self, activation, tmp_path):
        net = packnet_tf.PackNet(mlp_trunk())
        model = net.add_task("one", layers.Dense(3, activation=activation))
        net.commit()
        x = np.random.default_rng(0).normal(size=(5, 12)).astype("float32")
        chances = logits(model, x)
        for kind in ("logits", "probabilities"):
            assert export_onnx(net, "one", tmp_path / "m.onnx", outputs=kind) < 1e-6
            [output] = onnx.load(tmp_path / "m.onnx").graph.output
            assert output.name == "probabilities"
            np.testing.assert_allclose(answer(tmp_path / "m.onnx", x), chances, rtol=1e-5)
        assert export_onnx(net, "one", tmp_path / "k.onnx", outputs="top_k", top_k=1) < 1e-6
        classes, top = answers(tmp_path / "k.onnx", x)
        assert np.array_equal(classes[:, 0], chances.argmax(-1))
        np.testing.assert_allclose(top[:, 0], chances.max(-1), rtol=1e-5)

    @pytest.mark.parametrize("made_by", PROBABILITIES.values(), ids=list(PROBABILITIES))
    def test_probabilities_are_known_however_a_head_comes_to_them(self, made_by, tmp_path):
        """A second softmax would make them all alike."""
        features = keras.Input((8,))
        net = packnet_tf.PackNet(mlp_trunk())
        net.add_task("one", keras.Model(features, made_by(features)))
        net.commit()
        export_onnx(net, "one", tmp_path / "m.onnx", outputs="probabilities")
        x = np.random.default_rng(0).random((5, 12)).astype("float32")
        expected = [np.asarray(array) for array in keras.tree.flatten(net.task_model("one")(x))]
        found = answers(tmp_path / "m.onnx", x)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
        names = [entry.name for entry in onnx.load(tmp_path / "m.onnx").graph.output]
        assert all(name.startswith("probabilities") for name in names)
        if len(names) > 1:  # of logits, asked for as they are, the names say which are which
            export_onnx(net, "one", tmp_path / "plain.onnx")
            names = [entry.name for entry in onnx.load(tmp_path / "plain.onnx").graph.output]
            assert names == ["probabilities_0", "logits_1"]

    def test_one_probability_is_no_softmax(self, tmp_path):
        net = packnet_tf.PackNet(mlp_trunk())
        net.add_task("one", layers.Dense(1, activation="sigmoid"))
        net.commit()
        assert export_onnx(net, "one", tmp_path / "m.onnx", outputs="probabilities") < 1e-6

    def test_an_adopted_trunk_answers_with_features(self, tmp_path):
        net = packnet_tf.PackNet(conv_trunk())
        net.adopt("trunk", verbose=0)
        manifest = export_all(net, tmp_path)
        assert [output["name"] for output in manifest["tasks"][0]["outputs"]] == ["features"]

    def test_no_note_says_otherwise_than_the_file(self, tmp_path):
        net = picture_net()
        net.notes |= {"task": "garden", "task_number": "first", "classes": "?", "owner": "me"}
        export_all(net, tmp_path)
        facts = {p.key: p.value for p in onnx.load(tmp_path / "model_task2.onnx").metadata_props}
        assert facts == {
            "task": "two", "task_number": "2", "owner": "me", "pixel_range": "0,1"
        }  # fmt: skip
        assert [verdict.problems for verdict in verify(net, tmp_path)] == [[], []]
        with pytest.raises(ValueError) as error:
            export_onnx(net, "two", tmp_path / "m.onnx", metadata={"task": "garden"})
        assert str(error.value) == (
            "metadata has 'task', which the file says of itself. Choose another name."
        )

    def test_without_top_k_there_are_five_classes_or_all(self, net, tmp_path):
        inputs = keras.Input((12,))
        wide = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(4)(inputs), name="trunk"))
        wide.add_task("many", layers.Dense(7))
        wide.commit()
        for pack, task, count in ((net, "one", 3), (wide, "many", 5)):
            manifest = export_all(pack, tmp_path / task, tasks=[task], outputs="top_k")
            [entry] = manifest["tasks"]
            assert [output["shape"] for output in entry["outputs"]] == [[None, count]] * 2
            assert [verdict.problems for verdict in verify(pack, tmp_path / task)] == [[]]

    @pytest.mark.parametrize("outputs", ["probabilities", "top_k"])
    def test_an_adopted_trunk_gives_its_features_whatever_the_outputs(self, outputs, tmp_path):
        inputs = keras.Input((12,))
        net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(8)(inputs), name="trunk"))
        net.adopt("base", 0.5)
        net.add_task("one", layers.Dense(3))
        net.commit()
        base, one = export_all(net, tmp_path, outputs=outputs)["tasks"]
        assert [output["name"] for output in base["outputs"]] == ["features"]
        assert "features" not in [output["name"] for output in one["outputs"]]
        assert [verdict.problems for verdict in verify(net, tmp_path)] == [[], []]

    def test_more_than_there_are_is_refused(self, net, tmp_path):
        with pytest.raises(ValueError, match=r"task 'one': .*top_k=5 is for .*batch, 3"):
            export_onnx(net, "one", tmp_path / "m.onnx", outputs="top_k", top_k=5)
        with pytest.raises(ValueError, match="top_k is a whole number from 1; got 0"):
            export_onnx(net, "one", tmp_path / "m.onnx", outputs="top_k", top_k=0)
        with pytest.raises(ValueError, match="softmax=True gives probabilities, and outputs="):
            export_onnx(net, "one", tmp_path / "m.onnx", outputs="top_k", softmax=True)


class TestOtherKindsOfModels:
    """Heads that do not classify export too."""

    def with_head(self, head, shape=(SIDE, SIDE, 3)):
        inputs = keras.Input(shape, name="image")
        x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
        net = packnet_tf.PackNet(keras.Model(inputs, x, name="trunk"))
        model = net.add_task("task", head)
        net.prune(0.5)
        net.commit()
        return net, model

    def test_a_regression_has_one_number_and_no_class(self, tmp_path):
        head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(1)])
        net, _ = self.with_head(head)
        manifest = export_all(net, tmp_path)
        assert manifest["tasks"][0]["outputs"][0]["shape"] == [None, 1]
        assert manifest["tasks"][0]["agreement"] is None

    def test_dense_prediction_keeps_its_places(self, tmp_path):
        net, _ = self.with_head(layers.Conv2D(4, 1))
        manifest = export_all(net, tmp_path, preprocessing="uint8", pixel_range=(0, 1))
        assert manifest["tasks"][0]["outputs"][0]["shape"] == [None, SIDE, SIDE, 4]
        assert manifest["tasks"][0]["relative_difference"] < 1e-5
        export_all(net, tmp_path, outputs="probabilities")
        x = pictures().astype("float32")
        found = answer(tmp_path / "model_task1.onnx", x)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)

    def test_accuracy_of_what_does_not_classify_is_refused(self, tmp_path):
        net, _ = self.with_head(layers.Conv2D(4, 1))
        x = np.zeros((2, SIDE, SIDE, 3), "float32")
        with pytest.raises(ValueError, match=r"Accuracy is of a model with one output .*2, 16, 16"):
            export_all(net, tmp_path, evaluate={"task": (x, np.zeros(2))})
        assert list(tmp_path.iterdir()) == []


class TestMeasured:
    """Accuracy and agreement, in the manifest."""

    @pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
    @pytest.mark.parametrize("batch_size", [None, 4])
    def test_accuracy_is_that_of_the_file(self, precision, batch_size, net, tmp_path):
        x = pictures(count=12).astype("float32") / 255
        labels = np.arange(12) % 3
        manifest = export_all(
            net, tmp_path, precision=precision, batch_size=batch_size,
            evaluate={"one": [(x[:8], labels[:8]), (x[8:], labels[8:])]},
        )  # fmt: skip
        found = manifest["tasks"][0]["evaluated"]
        path = tmp_path / "model_task1.onnx"
        named = np.concatenate([answer(path, x[at : at + 4]).argmax(-1) for at in (0, 4, 8)])
        keras_named = logits(net.task_model("one"), x).argmax(-1)
        assert found["images"] == 12
        if precision == "float32" or batch_size:  # int8 ranges depend on the batch
            assert found["accuracy"] == np.mean(named == labels)
            assert found["agreement"] == np.mean(named == keras_named)
        assert found["keras_accuracy"] == np.mean(keras_named == labels)
        assert "evaluated" not in manifest["tasks"][1]

    def test_int8_takes_calibration_as_array_batches_or_by_task(self, net, tmp_path):
        x = pictures(count=8).astype("float32") / 255
        labelled = [(x[:4], np.zeros(4)), (x[4:], np.zeros(4))]
        for calibration in (x, labelled, {"one": x, "two": labelled}):
            manifest = export_all(net, tmp_path, precision="int8", calibration=calibration)
            kinds = {node.op_type for node in onnx.load(tmp_path / "model_task1.onnx").graph.node}
            assert "QuantizeLinear" in kinds
            assert [task["calibrated"] for task in manifest["tasks"]] == [True, True]
            expected = logits(net.task_model("one"), x)
            found = answer(tmp_path / "model_task1.onnx", x)
            assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()

    def test_int8_calibrates_the_tasks_with_calibration(self, net, tmp_path):
        x = pictures().astype("float32") / 255
        given = {"one": x, "two": None}
        manifest = export_all(net, tmp_path, precision="int8", calibration=given)
        assert [task["calibrated"] for task in manifest["tasks"]] == [True, False]

    def test_calibration_for_another_precision_is_refused(self, net, tmp_path):
        with pytest.raises(ValueError, match="calibration is for 'int8', not for 'float32'"):
            export_onnx(net, "one", tmp_path / "m.onnx", calibration=np.zeros((1, 16, 16, 3)))
