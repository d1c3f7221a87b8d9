"""The classifier behind `packnet predict`, on files of every form."""

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from helpers.onnx_files import (
    manifest,
    softmax,
    write_failing_model,
    write_model,
    write_other_model,
    write_picture,
    write_shape_model,
)
from helpers.pack_helpers import conv_trunk, logits, packed
from packnet_tf.apps.device.classifier import Classifier
from packnet_tf.apps.device.weight_files import changed_weights, weight_files
from packnet_tf.apps.images.pixels import read_image
from packnet_tf.apps.main import main
from packnet_tf.export.runtime.session import ProviderError, provider_name

ORANGE = (250, 120, 10)  # logits of (25, 12, 1) in a file of write_model


@pytest.mark.parametrize("output", ["logits", "probabilities", "top"])
def test_every_form_of_answer_gives_classes_and_probabilities(output, tmp_path):
    classifier = Classifier(write_model(tmp_path / "m.onnx", output, task="colours"))
    found = classifier.top(write_picture(tmp_path / "orange.png", ORANGE), 2)
    expected = softmax([25, 12, 1])
    assert [index for index, _ in found] == [0, 1]
    np.testing.assert_allclose([chance for _, chance in found], expected[:2], rtol=1e-5)
    assert (classifier.task, classifier.classes) == ("colours", ["red", "green", "blue"])


def test_there_are_as_many_classes_as_asked_for_or_as_the_file_gives(tmp_path):
    picture = write_picture(tmp_path / "orange.png", ORANGE)
    whole = Classifier(write_model(tmp_path / "m.onnx"))
    assert [len(whole.top(picture, k)) for k in (1, 2, 3, 9)] == [1, 2, 3, 3]
    top = Classifier(write_model(tmp_path / "t.onnx", "top", k=2))
    assert [len(top.top(picture, k)) for k in (1, 2, 3, 9)] == [1, 2, 2, 2]


def test_uint8_files_get_the_picture_upright_at_its_own_size(tmp_path):
    classifier = Classifier(write_shape_model(tmp_path / "m.onnx"))
    lying = write_picture(tmp_path / "lying.png", ORANGE, size=(9, 4))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    standing = write_picture(tmp_path / "standing.jpg", ORANGE, size=(9, 4), exif=turned)
    assert classifier.size is None
    assert classifier.load(lying).shape == (4, 9, 3)
    assert classifier.load(standing).shape == (9, 4, 3)
    pictures = [classifier.load(lying), classifier.load(standing)]
    found = classifier.top_of(pictures, 1)  # of two sizes: one by one
    assert [classifier.classes[index] for [(index, _)] in found] == ["wide", "tall"]


def test_float_files_get_the_size_and_the_range_that_they_want(tmp_path):
    path = write_model(
        tmp_path / "m.onnx", dtype="float32", size=(5, 7), matrix=np.eye(3), pixel_range="-1,1"
    )
    classifier = Classifier(path)
    picture = write_picture(tmp_path / "p.png", (255, 0, 51), size=(20, 30))
    assert classifier.load(picture).shape == (5, 7, 3)
    for chooser, expected in (
        (classifier, softmax([1, -1, -0.6])),
        (Classifier(path, pixel_range="0,1"), softmax([1, 0, 0.2])),  # the flag wins
    ):
        chances = dict(chooser.top(picture, 3))
        np.testing.assert_allclose([chances[index] for index in range(3)], expected, rtol=1e-6)


def test_float_files_of_any_size_get_the_size_asked_for(tmp_path):
    path = write_model(tmp_path / "m.onnx", dtype="float32", pixel_range="0,255")
    assert Classifier(path).size == (224, 224)
    assert Classifier(path, image_size=96).size == (96, 96)


def test_uint8_files_of_a_fixed_size_get_that_size(tmp_path):
    classifier = Classifier(write_model(tmp_path / "m.onnx", size=(5, 7)))
    picture = write_picture(tmp_path / "p.png", ORANGE, size=(20, 30))
    assert classifier.load(picture).shape == (5, 7, 3)
    assert classifier.top(picture, 1)[0][0] == 0


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_channels_are_given_in_the_order_that_the_file_wants(dtype, tmp_path):
    facts = {"dtype": dtype, "pixel_range": "0,255"}
    picture = write_picture(tmp_path / "p.png", ORANGE)
    for order, expected in (({}, 0), ({"channel_order": "rgb"}, 0), ({"channel_order": "bgr"}, 2)):
        path = write_model(tmp_path / "m.onnx", **facts, **order)
        assert Classifier(path).top(picture, 1)[0][0] == expected


def test_an_unknown_order_of_channels_is_an_error(tmp_path):
    path = write_model(tmp_path / "m.onnx", channel_order="yuv")
    with pytest.raises(ValueError) as error:
        Classifier(path)
    assert str(error.value) == (
        f"'{path}' wants its channels in the order 'yuv', expected 'rgb' or 'bgr'. Export it again "
        "with one of those as channel_order."
    )


def test_files_of_one_channel_get_grey_pictures(tmp_path):
    matrix = [[0.1, 0]]
    path = write_model(tmp_path / "m.onnx", channels=1, matrix=matrix, classes=("light", "dark"))
    classifier = Classifier(path)
    picture = write_picture(tmp_path / "p.png", (200, 200, 200))
    assert classifier.load(picture).shape == (3, 4, 1)
    np.testing.assert_allclose(classifier.top(picture, 1)[0][1], softmax([20, 0])[0], rtol=1e-6)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_answers_do_not_depend_on_the_batch(batch, tmp_path):
    path = write_model(
        tmp_path / "m.onnx", dtype="float32", size=(2, 2), batch=batch, pixel_range="0,255"
    )
    classifier = Classifier(path)
    colours = [(9, 0, 0), (0, 9, 0), (0, 0, 9), (0, 9, 0), (9, 0, 0)]
    images = [np.full((2, 2, 3), colour, np.uint8) for colour in colours]
    found = classifier.top_of(images, 1)
    assert [index for [(index, _)] in found] == [0, 1, 2, 1, 0]
    assert classifier.top_of([], 1) == []


def test_a_fixed_batch_of_whole_pictures_is_filled(tmp_path):
    classifier = Classifier(write_model(tmp_path / "m.onnx", batch=3))
    images = [np.full((1 + n, 5, 3), [0, 9 * n, 5], np.uint8) for n in range(2)]
    assert [index for [(index, _)] in classifier.top_of(images, 1)] == [2, 1]


def test_an_exported_task_answers_as_its_keras_view(tmp_path):
    from packnet_tf.export import export_onnx

    net = packed(conv_trunk(), one=0.5)
    path = tmp_path / "m.onnx"
    export_onnx(net, "one", path, metadata={"pixel_range": "0,1"})
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    image = read_image(tmp_path / "p.png", 6, 6, 1).astype("float32")[None] / 255
    expected = softmax(logits(net.task_model("one"), image)[0])
    classifier = Classifier(str(path))
    found = dict(classifier.top(tmp_path / "p.png", 3))
    np.testing.assert_allclose([found[index] for index in range(3)], expected, rtol=1e-4)
    assert (classifier.task, classifier.classes, classifier.count) == ("one", None, 3)


def test_weights_in_a_file_beside_are_found_wherever_the_process_runs(tmp_path, monkeypatch):
    path = write_model(tmp_path / "m.onnx", beside="shared.data")
    monkeypatch.chdir("/")
    assert weight_files(path) == [tmp_path / "shared.data"]
    assert Classifier(path).top(write_picture(tmp_path / "p.png", ORANGE), 1)[0][0] == 0


def test_a_model_of_one_file_has_no_weights_beside_it(tmp_path):
    assert weight_files(write_model(tmp_path / "m.onnx")) == []
    (tmp_path / "empty.onnx").touch()
    assert weight_files(tmp_path / "empty.onnx") == []


@pytest.mark.parametrize("length", [1, 127, 128, 200])
def test_names_of_weight_files_may_be_long(length, tmp_path):
    name = "w" * length
    path = write_model(tmp_path / "m.onnx", beside=name)
    assert weight_files(path) == [tmp_path / name]


COPY = "Copy the model and its weights again, from one export to one folder."


def test_a_missing_file_of_weights_is_named(tmp_path):
    path = write_model(tmp_path / "m.onnx", beside="shared.data")
    (tmp_path / "shared.data").unlink()
    with pytest.raises(FileNotFoundError) as error:
        Classifier(path)
    assert str(error.value) == (
        f"'{path}' has weights in '{tmp_path / 'shared.data'}', which is missing. {COPY}"
    )


@pytest.mark.parametrize("left", [0, 10])
def test_a_file_of_weights_that_is_cut_short_is_named(left, tmp_path):
    path = write_model(tmp_path / "m.onnx", beside="shared.data")
    with open(tmp_path / "shared.data", "r+b") as file:
        file.truncate(left)
    with pytest.raises(ValueError) as error:
        Classifier(path)
    text = str(error.value)
    assert text.startswith(
        f"'{path}' has weights in '{tmp_path / 'shared.data'}', which does not fit: "
    )
    assert text.endswith(f". {COPY}")


def test_a_single_wrong_bit_among_the_weights_is_told_by_the_manifest(tmp_path):
    path = write_model(tmp_path / "m.onnx", beside="shared.data")
    alone = write_model(tmp_path / "alone.onnx")
    shared = tmp_path / "shared.data"
    manifest(tmp_path, "m.onnx", "alone.onnx", shared=["shared.data"])
    assert changed_weights(path) == {}
    content = bytearray(shared.read_bytes())
    content[3] ^= 1
    shared.write_bytes(content)
    with pytest.raises(ValueError) as error:
        Classifier(path)
    assert str(error.value) == (
        f"'{path}' has weights in '{shared}', which does not fit: its checksum is not the "
        f"manifest's: it is damaged or another file. {COPY}"
    )
    assert changed_weights(alone) == {}  # its weights are its own
    (tmp_path / "manifest.json").write_text("somebody else's")
    assert changed_weights(path) == {}


def test_a_model_that_is_damaged_or_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        Classifier("nowhere.onnx")
    assert str(error.value) == "There is no model 'nowhere.onnx'. packnet export writes one."
    path = tmp_path / "bad.onnx"
    write_model(path, source="a garden")
    whole = path.read_bytes()
    no_text = [
        whole.replace(text, b"\xbf" * len(text)) for text in (b"a garden", b"image", b"logits")
    ]
    unread = "is not a model that onnxruntime can read: "
    damaged = "has names or metadata that are no text: it is damaged"
    for content in (b"no model", b"", *no_text):
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            Classifier(str(path))
        text = str(error.value)
        assert text.startswith(f"'{path}' {damaged if content in no_text else unread}")
        assert text.endswith(". Write it again with packnet export.")


@pytest.mark.parametrize(
    ("shapes", "options", "text"),
    [
        (
            [(4, 4, 3), (1, 2, 2, 5)],
            {},
            "'{}' does not classify: it answers with 'logits' of shape [1, 2, 2, 5], "
            "expected 'logits' or 'probabilities' of shape (batch, classes), or 'top_classes' and "
            "'top_probabilities'. Run it with onnxruntime itself.",
        ),
        ([(4, 4, 3), (1, 1)], {}, "it answers with 'logits' of shape [1, 1], expected"),
        ([(4, 4, 3), (1, 4)], {"output": "values"}, "'values' of shape [1, 4], expected"),
        (
            [(12,), (1, 3)],
            {},
            "'{}' does not classify images: its input 'image' is tensor(float) of shape "
            "['batch', 12], expected one input of shape (batch, height, width, 3 or 1), float or "
            "uint8.",
        ),
        ([(3, 8, 8), (1, 3)], {}, "of shape ['batch', 3, 8, 8], expected one input of shape"),
        (
            [(4, 4, 3), (1, 3)],
            {"inputs": 2},
            "'{}' does not classify images: it has the inputs 'image', 'depth', expected one input "
            "of shape (batch, height, width, 3 or 1), float or uint8.",
        ),
    ],
)
def test_files_that_do_not_classify_images_are_refused(shapes, options, text, tmp_path):
    path = write_other_model(tmp_path / "m.onnx", *shapes, **options)
    with pytest.raises(ValueError) as error:
        Classifier(path)
    assert text.format(path) in str(error.value)


def test_names_that_do_not_fit_the_answers_are_refused(tmp_path):
    path = write_model(tmp_path / "m.onnx", classes=("a", "b"))
    with pytest.raises(ValueError) as error:
        Classifier(path)
    assert str(error.value) == (
        f"'{path}' names 2 classes and answers with 3. Write it again with packnet export."
    )


def test_answers_that_are_no_numbers_are_refused(tmp_path):
    path = write_model(tmp_path / "m.onnx", matrix=[[np.nan] * 3] * 3)
    with pytest.raises(ValueError) as error:
        Classifier(path).top(write_picture(tmp_path / "p.png", ORANGE), 1)
    assert str(error.value) == (
        f"'{path}' answers NaN or infinite numbers. Train the task again, or, where it was "
        "exported in a lower precision, export it in float32."
    )


def test_a_file_that_fails_when_it_runs_is_named(tmp_path):
    path = write_failing_model(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"(?s)m.onnx' cannot be run: .* It may be damaged: copy"):
        Classifier(path).top(write_picture(tmp_path / "p.png", ORANGE), 1)


# Providers


def test_a_provider_is_named_as_onnxruntime_does_or_shorter():
    for name in ("cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"):
        assert provider_name(name) == "CPUExecutionProvider"
    for full in onnxruntime.get_available_providers():
        assert provider_name(full.removesuffix("ExecutionProvider").upper()) == full


@pytest.mark.parametrize("command", ["predict", "evaluate", "benchmark"])
def test_a_provider_that_is_not_installed_is_refused_with_those_that_are(command, tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx")
    assert main([command, model, "p.png", "--provider=abacus"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"packnet {command}: onnxruntime {onnxruntime.__version__} has no ")
    assert "provider 'abacus' here; it has " in err
    for full in onnxruntime.get_available_providers():
        assert full.removesuffix("ExecutionProvider").lower() in err


def test_a_provider_that_cannot_start_is_an_error_and_not_the_cpu(tmp_path, monkeypatch):
    model = write_model(tmp_path / "m.onnx")
    listed = ["AbacusExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _on_the_cpu(onnxruntime.InferenceSession))
    with pytest.raises(ProviderError) as error:
        Classifier(model, provider="abacus")
    assert "'AbacusExecutionProvider' but cannot start it on this machine" in str(error.value)
    assert Classifier(model).count == 3


def _on_the_cpu(opened):
    """Opens a session as onnxruntime does where the hardware of a provider is missing."""
    return lambda path, options, providers: opened(path, options, providers[-1:])


@pytest.mark.parametrize("classes", ["no JSON", "[" * 5_000, '{"cat": 0}', "[1, 2, 3]"])
def test_damaged_metadata_names_the_file(classes, tmp_path):
    path = write_model(tmp_path / "m.onnx")
    proto = onnx.load(path)
    for entry in proto.metadata_props:
        entry.value = classes if entry.key == "classes" else entry.value
    onnx.save(proto, path)
    with pytest.raises(
        ValueError, match=r"m\.onnx' has damaged metadata: its classes are"
    ) as error:
        Classifier(path)
    assert len(str(error.value)) < 1000
