"""Options and data of an export that do not fit are refused in words, before work starts."""

import json

import numpy as np
import pytest

from helpers.pack_helpers import mlp_trunk, packed
from packnet_tf.export import export_all, export_bundle, export_multitask, export_onnx
from packnet_tf.export.options import ExportOptions


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "int4"}, "precision='int4' is not known to the export; write precision="),
        ({"opset": 12}, "opset is 13 to 18; got 12. Leave it out for 17."),
        ({"opset": 19}, "opset is 13 to 18; got 19."),
        ({"batch_size": 0}, "batch_size is a whole number from 1; got 0. Write batch_size=8."),
        ({"batch_size": True}, "batch_size is a whole number from 1; got True."),
        ({"top_k": 3}, 'top_k=3 goes with outputs="top_k". Add that.'),
        ({"tolerance": float("nan")}, "tolerance is a number, 1e-4 for instance; got nan."),
        ({"input_names": "image"}, "input_names is a list of different names, none of them an"),
        ({"input_names": ["a", "a"]}, "input_names is a list of different names"),
        ({"input_names": ["logits"]}, "(logits, probabilities, top_classes, top_probabilities)"),
        ({"mean": 0.5}, 'mean=0.5 is for files that take pictures. Add preprocessing="uint8"'),
        ({"channel_order": "bgr"}, "channel_order='bgr' is for files that take pictures."),
        ({"preprocessing": "uint8", "mean": np.nan}, "mean is finite; got nan."),
        ({"preprocessing": "uint8", "std": [1, 0, 1]}, "std is finite and not 0, because it div"),
        (
            {"preprocessing": "uint8", "pixel_range": (1, 1)},
            "pixel_range is two numbers, what pixels of 0 and 255 become; got (1, 1).",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, text):
    with pytest.raises(ValueError) as caught:
        ExportOptions(**options)
    assert text in str(caught.value)


def test_arrays_become_plain_numbers():
    options = ExportOptions(
        preprocessing="uint8", mean=np.float32(0.5), std=np.array([1, 2, 3]),
        pixel_range=np.array([0, 1]),
    )  # fmt: skip
    assert options.changed() == {
        "preprocessing": "uint8", "mean": 0.5, "std": [1.0, 2.0, 3.0], "pixel_range": [0.0, 1.0],
        "opset": 18,
    }  # fmt: skip
    assert ExportOptions(**options.changed()) == options


@pytest.fixture(scope="module")
def net():
    return packed(mlp_trunk(), birds=0.5, cars=0.5)


X = np.random.default_rng(0).normal(size=(40, 12)).astype("float32")
Y = np.arange(40) % 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"samples": X},
            "samples is a dict by task name, and it is ndarray. The tasks are 'birds'",
        ),
        ({"samples": {"bird": X}}, "samples is a dict by task name, and it has 'bird', which is"),
        ({"evaluate": {"Cars": (X, Y)}}, "write evaluate={'birds': (images, labels)}."),
        ({"evaluate": {"cars": (X, Y[:33])}}, "40 examples have labels of shape (33,); expected"),
        (
            {"evaluate": {"cars": [(X, np.eye(3)[Y])]}},
            "40 examples have labels of shape (40, 3); expected one whole number each, the place "
            "of the class. Of one-hot labels, give labels.argmax(-1).",
        ),
        ({"evaluate": {"cars": []}}, "evaluate has no examples. Give some, or leave it out."),
        ({"evaluate": {"cars": [X]}}, "evaluate is pairs (inputs, labels), or one; got ndarray."),
        (
            {"evaluate": {"cars": ([X, X], Y)}},
            "2 arrays are given for a model with 1 inputs",
        ),
        (
            {"samples": {"cars": {"f": X}}},
            "The inputs given are 'f', and the model's are 'features",
        ),
        ({"tasks": ["cars", "cars"]}, "tasks names 'cars' twice. Name each task once."),
        ({"tasks": "cars"}, "tasks is a list of names; got 'cars'. Write tasks=['cars']."),
        (
            {"precision": "int8", "calibration": {"birds": X}},
            "calibration has nothing for the task 'cars'. Give inputs for each task",
        ),
        ({"precision": "int8", "calibration": []}, "calibration is empty"),
    ],
)
def test_data_that_do_not_fit_are_refused(arguments, text, net, tmp_path):
    with pytest.raises(ValueError) as caught:
        export_all(net, tmp_path / "onnx", **arguments)
    assert text in str(caught.value)
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("export", "options", "text"),
    [
        (export_all, {"precison": "int8"}, "has no option 'precison'. Write precision."),
        (export_onnx, {"opsets": 17}, "has no option 'opsets'. Write opset."),
        (export_bundle, {"softmx": True}, "has no option 'softmx'. Write softmax."),
        (export_multitask, {"x": 1}, "has no option 'x'. Write softmax or opset or batch_size or"),
        (export_bundle, {"tasks": ["birds"]}, "A bundle holds all tasks. Leave tasks out."),
        (export_multitask, {"names": "task"}, "has the name that path gives it. Leave names out."),
    ],
)
def test_unknown_options_are_refused_with_the_nearest_one(export, options, text, net, tmp_path):
    where = [tmp_path / "all.onnx"]
    with pytest.raises(TypeError) as caught:
        export(net, *(["birds", *where] if export is export_onnx else where), **options)
    assert text in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_batch_does_not_count_in_a_calibration(net, tmp_path):
    written = []
    for count in (40, 32, 5):
        options = {"precision": "int8", "batch_size": 16, "calibration": X[:count]}
        export_onnx(net, "cars", tmp_path / "cars.onnx", **options)
        written.append((tmp_path / "cars.onnx").read_bytes())
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize(
    "data", [(X, Y), (X, Y[:, None]), [(X[:25], Y[:25]), (X[25:], Y[25:])], [[X, Y]]]
)
@pytest.mark.parametrize("batch_size", [None, 64])
def test_labelled_inputs_count_once_each_in_whatever_form(data, batch_size, net, tmp_path):
    manifest = export_all(
        net, tmp_path, tasks=["cars"], evaluate={"cars": data}, batch_size=batch_size
    )
    found = manifest["tasks"][0]["evaluated"]
    assert (found["images"], found["agreement"]) == (40, 1.0)
    expected = np.mean(net.task_model("cars").predict(X, verbose=0).argmax(-1) == Y)
    assert found["accuracy"] == found["keras_accuracy"] == expected


@pytest.mark.parametrize(
    "data",
    [X, [X], [X[:20], X[20:]], (X, Y), [(X[:20], Y[:20]), (X[20:], Y[20:])], {"features": X}],
)
def test_calibration_in_whatever_form_gives_the_same_file(data, net, tmp_path):
    def halves():
        yield X[:20]
        yield X[20:]

    manifest = export_all(net, tmp_path / "a", precision="int8", calibration=data)
    other = export_all(net, tmp_path / "b", precision="int8", calibration=halves())
    assert [t["sha256"] for t in manifest["tasks"]] == [t["sha256"] for t in other["tasks"]]


def test_inputs_by_name_go_to_the_inputs_of_these_names(tmp_path):
    import keras
    from keras import layers

    ends = [keras.Input((3,), name="zeta"), keras.Input((3,), name="alpha")]
    trunk = keras.Model(ends, layers.Dense(6)(layers.concatenate(ends)), name="trunk")
    net = packed(trunk, one=0.5)
    arrays = {"zeta": X[:, :3], "alpha": X[:, 3:6]}
    labels = net.task_model("one").predict([arrays["zeta"], arrays["alpha"]], verbose=0).argmax(-1)
    found = export_all(net, tmp_path, evaluate={"one": (arrays, labels)})["tasks"][0]["evaluated"]
    assert found["accuracy"] == 1.0


def test_the_path_of_a_file_ends_in_onnx(net, tmp_path):
    for path in (tmp_path, tmp_path / "m.json"):
        with pytest.raises(ValueError, match=r"cannot be the file: expected a name that ends in"):
            export_onnx(net, "birds", path)
    assert list(tmp_path.iterdir()) == []


def test_a_probability_of_one_class_is_refused(tmp_path):
    from keras import layers

    import packnet_tf

    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("age", layers.Dense(1))
    net.commit()
    with pytest.raises(ValueError, match="the probability of one alone is always 1"):
        export_onnx(net, "age", tmp_path / "m.onnx", outputs="probabilities")


def test_single_tasks_do_not_go_to_a_bundle_or_to_another_packs_folder(net, tmp_path):
    from packnet_tf.export import export_bundle

    export_bundle(net, tmp_path / "bundle")
    with pytest.raises(ValueError, match="holds a bundle, which files of single tasks do not go"):
        export_all(net, tmp_path / "bundle", tasks=["cars"])
    export_all(packed(mlp_trunk(), dogs=0.5, cats=0.5), tmp_path / "other")
    with pytest.raises(ValueError, match="holds the task 'dogs' of another pack"):
        export_all(net, tmp_path / "other", tasks=["cars"])


def test_a_tolerance_of_numpy_can_be_written_to_a_manifest():
    options = ExportOptions(tolerance=np.float32(0.25))
    assert json.loads(json.dumps(options.changed()))["tolerance"] == 0.25
