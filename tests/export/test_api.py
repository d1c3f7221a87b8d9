"""Promise 8: an exported task equals its Keras view."""

import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import numpy_helper

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import (
    TRUNKS,
    break_task,
    conv_trunk,
    logits,
    mlp_trunk,
    packed,
    packed_layers,
)
from packnet_tf.export import export_all, export_bundle, export_onnx, verify
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.task_graph import TaskGraph


def test_zero_padding_before_pooling_is_zero_in_the_file_too(tmp_path):
    """onnxruntime would pad with the lowest number, and pool something negative at the border."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(3, 3, bias_initializer=keras.initializers.Constant(-5.0))(inputs)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    net = packed(keras.Model(inputs, layers.Flatten()(x), name="trunk"), one=0.5)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")
    assert export_onnx(net, "one", tmp_path / "m.onnx", samples=x) < 1e-6


def test_recurrent_layers_are_operators_of_onnx(tmp_path, capfd):
    inputs = keras.Input((5, 3), name="sequence")
    net = packed(keras.Model(inputs, layers.LSTM(4)(inputs), name="trunk"), one=0.5)
    capfd.readouterr()
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-6
    kinds = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "LSTM" in kinds
    assert "Loop" not in kinds
    assert "rewriter" not in capfd.readouterr().err


@pytest.mark.parametrize("opset", [13, 18])
def test_kernels_are_baked_in_under_any_opset(opset, tmp_path):
    inputs = keras.Input((8, 2), name="signal")
    x = layers.SeparableConv1D(3, 3)(layers.Conv1D(4, 3)(inputs))
    net = packed(keras.Model(inputs, layers.Flatten()(x), name="trunk"), one=0.5)
    assert export_onnx(net, "one", tmp_path / "m.onnx", opset=opset) < 1e-6
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert {"conv1d/kernel"} <= {entry.name for entry in graph.initializer}


@pytest.mark.parametrize(("least", "samples"), [(40, None), (5, None), (40, (2, 50, 60, 1))])
def test_images_of_any_size_export_from_the_least_on_that_they_take(least, samples, tmp_path):
    inputs = keras.Input((None, None, 1), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, least)(inputs))
    net = packed(keras.Model(inputs, x, name="trunk"), one=0.5)
    given = None if samples is None else np.zeros(samples, "float32")
    assert export_onnx(net, "one", tmp_path / "m.onnx", samples=given) < 1e-5


def test_where_no_size_is_found_samples_are_asked_for(tmp_path):
    inputs = keras.Input((None, 1), name="sound")
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(2, 1100)(inputs))
    net = packed(keras.Model(inputs, x, name="trunk"), one=0.5)
    with pytest.raises(ValueError) as error:
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert str(error.value) == (
        "The model's inputs have unknown lengths, (None, None, 1), and it answers to none of 32, "
        "64, 128, 256, 512, 1024, 16, 8. Give samples, inputs of a size that it takes."
    )
    samples = np.ones((2, 1200, 1), "float32")
    assert export_onnx(net, "one", tmp_path / "m.onnx", samples=samples) < 1e-5


def test_random_images_have_the_pixel_values_of_the_pack():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(2, 3)(inputs))
    net = packed(keras.Model(inputs, x, name="trunk"), one=0.5)
    for noted, least, most in ((None, 0.0, 1.0), ("0,255", 0.0, 255.0), ("-1,1", -1.0, 1.0)):
        net.notes |= {"pixel_range": noted} if noted else {}
        [([found], _)] = TaskGraph(net, "one", ExportOptions()).comparison.batches()
        assert least <= found.min() < least + 0.1 * (most - least)
        assert most - 0.1 * (most - least) < found.max() <= most


@pytest.fixture
def net():
    return packed(conv_trunk(), birds=0.5, cars=0.5, flowers=0)


def images(count=5, seed=3):
    return np.random.default_rng(seed).normal(size=(count, 6, 6, 1)).astype("float32")


def answer(path, *inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


@pytest.mark.parametrize("kind", sorted(TRUNKS))
def test_every_task_answers_as_its_view(kind, tmp_path):
    net = packed(TRUNKS[kind](), one=0.5, two=0.5)
    x = np.random.default_rng(0).normal(size=(6, *net.task_model("one").input_shape[1:]))
    x = x.astype("float32")
    for task in net.tasks:
        difference = export_onnx(net, task, tmp_path / f"{task}.onnx", samples=x)
        expected = logits(net.task_model(task), x)
        found = np.abs(answer(tmp_path / f"{task}.onnx", x) - expected).max()
        # Keras itself rounds the last digit one way or the other, batch by batch.
        digit = np.finfo(np.float32).eps
        assert found <= (difference + digit) * max(np.abs(expected).max(), 1.0)
        assert difference < 1e-5


def test_released_and_foreign_weights_are_exactly_zero_in_the_file(net, tmp_path):
    for number, task in enumerate(net.tasks, start=1):
        export_onnx(net, task, tmp_path / "m.onnx")
        graph = onnx.load(tmp_path / "m.onnx").graph
        constants = [numpy_helper.to_array(entry) for entry in graph.initializer]
        for layer in packed_layers(net.task_model(task)):
            weight = layer.packed_weights["kernel"]
            owner = keras.ops.convert_to_numpy(weight.owner)
            values = keras.ops.convert_to_numpy(weight.packed)
            assert (values != 0).all()
            seen = (owner >= 1) & (owner <= number)
            assert seen.all() == (number == len(net.tasks))
            seen = seen.transpose(3, 2, 0, 1) if seen.ndim == 4 else seen
            # The converter may scale a kernel by the normalisation after it; zero stays zero.
            assert any(np.array_equal(seen, constant != 0) for constant in constants), layer.name


def test_no_mask_and_no_owner_is_left_in_the_graph(net, tmp_path):
    export_onnx(net, "cars", tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert not {node.op_type for node in graph.node} & {"Where", "LessOrEqual", "Equal", "And"}
    kinds = {numpy_helper.to_array(entry).dtype.kind for entry in graph.initializer}
    assert kinds <= {"f", "i"}
    packed_bytes = sum(numpy_helper.to_array(entry).nbytes for entry in graph.initializer)
    plain = sum(weight.numpy().nbytes for weight in net.unpack("cars").weights)
    assert packed_bytes <= plain + 200


def test_the_file_names_its_task_classes_and_notes(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    net.notes["pixel_range"] = "0,255"
    net.add_task("pets", layers.Dense(2), classes=["cat", "dog"])
    net.commit()
    export_onnx(net, "pets", tmp_path / "m.onnx", metadata={"made_by": "me"})
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert facts == {
        "task": "pets",
        "task_number": "1",
        "classes": '["cat", "dog"]',
        "pixel_range": "0,255",
        "made_by": "me",
    }


def test_one_image_input_is_called_image_and_any_batch_fits(net, tmp_path):
    export_onnx(net, "birds", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (entry,), (output,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape[1:], entry.type) == ("image", [6, 6, 1], "tensor(float)")
    assert output.name == "logits"
    for count in (1, 7):
        assert answer(tmp_path / "m.onnx", images(count)).shape == (count, 3)


def test_several_inputs_keep_the_trunks_names_and_dtypes(tmp_path):
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    extra = keras.Input((3,), name="extra")
    x = layers.Flatten()(layers.Embedding(10, 2)(tokens))
    trunk = keras.Model([tokens, extra], layers.Dense(4)(layers.concatenate([x, extra])))
    net = packed(trunk, one=0.5)
    export_onnx(net, "one", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    found = {entry.name: entry.type for entry in session.get_inputs()}
    assert found == {"tokens": "tensor(int32)", "extra": "tensor(float)"}


def test_options_softmax_fixed_batch_opset_and_input_names(net, tmp_path):
    export_onnx(
        net, "cars", tmp_path / "m.onnx", softmax=True, batch_size=2, opset=15,
        input_names=["x"], samples=images(5),
    )  # fmt: skip
    model = onnx.load(tmp_path / "m.onnx")
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [15]
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    assert session.get_inputs()[0].name == "x"
    assert session.get_inputs()[0].shape[0] == 2
    assert session.get_outputs()[0].name == "probabilities"
    np.testing.assert_allclose(answer(tmp_path / "m.onnx", images(2)).sum(-1), 1, rtol=1e-6)


def test_above_the_tolerance_no_file_is_left_and_the_error_says_by_how_much(net, tmp_path):
    with pytest.raises(ValueError, match="differs from Keras by") as caught:
        export_onnx(net, "birds", tmp_path / "m.onnx", tolerance=-1.0)
    figure = r"task 'birds' differs from Keras by \d\.\d\de[-+]\d\d of the largest output"
    assert re.search(figure, str(caught.value))
    assert "No file was written." in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_given_samples_are_compared_besides_the_random_ones(net, tmp_path):
    manifest = export_all(net, tmp_path, samples={"birds": images(11)})
    assert [task["compared_inputs"] for task in manifest["tasks"]] == [4 + 11, 4, 4]


def test_export_all_writes_one_file_per_task_and_a_manifest(net, tmp_path):
    seen = []
    manifest = export_all(net, tmp_path / "onnx", progress=seen.append)
    names = ["model_task1.onnx", "model_task2.onnx", "model_task3.onnx"]
    assert sorted(p.name for p in (tmp_path / "onnx").iterdir()) == ["manifest.json", *names]
    assert json.loads((tmp_path / "onnx" / "manifest.json").read_text()) == manifest
    assert seen == list(net.tasks)
    assert [task["file"] for task in manifest["tasks"]] == names
    first = manifest["tasks"][0]
    assert first["task"] == "birds"
    assert first["bytes"] == (tmp_path / "onnx" / names[0]).stat().st_size
    assert 0 <= first["relative_difference"] < 1e-5
    assert first["inputs"] == [{"name": "image", "shape": [None, 6, 6, 1], "dtype": "float32"}]


def test_exporting_one_task_again_keeps_the_others_in_the_manifest(net, tmp_path):
    before = export_all(net, tmp_path)
    after = export_all(net, tmp_path, tasks=["cars"])
    assert [task["task"] for task in after["tasks"]] == ["birds", "cars", "flowers"]
    assert after["tasks"][0] == before["tasks"][0]


def test_files_are_named_by_their_task_on_request(net, tmp_path):
    manifest = export_all(net, tmp_path / "onnx", names="task")
    files = ["birds.onnx", "cars.onnx", "flowers.onnx"]
    assert [task["file"] for task in manifest["tasks"]] == files
    assert [verdict.problems for verdict in verify(net, tmp_path / "onnx")] == [[], [], []]
    bundle = export_bundle(net, tmp_path / "bundle", names="task")
    assert [task["file"] for task in bundle["tasks"]] == files
    message = "names='class' is not known to the export; write names="
    with pytest.raises(ValueError, match=message):
        export_all(net, tmp_path / "onnx", names="class")
    with pytest.raises(ValueError, match=message):  # also where no task is new
        export_bundle(net, tmp_path, update_from=tmp_path / "bundle", names="class")


def test_a_task_exported_under_another_name_replaces_its_file(net, tmp_path):
    export_all(net, tmp_path)
    manifest = export_all(net, tmp_path, tasks=["cars"], names="task")
    files = ["model_task1.onnx", "cars.onnx", "model_task3.onnx"]
    assert [task["file"] for task in manifest["tasks"]] == files
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", *files}


def test_the_same_pack_gives_files_that_answer_bit_for_bit_alike(net, tmp_path):
    first = export_all(net, tmp_path / "a")
    second = export_all(net, tmp_path / "b")
    for one, other in zip(first["tasks"], second["tasks"], strict=True):
        assert np.array_equal(
            answer(tmp_path / "a" / one["file"], images()),
            answer(tmp_path / "b" / other["file"], images()),
        )


def test_when_one_task_fails_the_folder_is_as_it_was(net, tmp_path):
    before = export_all(net, tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="answers NaN or infinite numbers"):
        export_all(net, tmp_path, tasks=["birds", "cars"], progress=Spoil(net, "cars"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert json.loads((tmp_path / "manifest.json").read_text()) == before


class Spoil:
    """Breaks a task just before it is exported."""

    def __init__(self, net, task):
        self.net, self.task = net, task

    def __call__(self, name):
        if name == self.task:
            break_task(self.net, 1, np.inf)


def test_files_of_tasks_that_are_gone_are_removed(net, tmp_path):
    export_all(net, tmp_path)
    export_all(packed(conv_trunk(), other=0.5), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "model_task1.onnx"]


def test_an_optimization_of_the_converter_that_fails_is_left_out(net, tmp_path, monkeypatch):
    from tf2onnx import optimizer

    calls = []

    def fails():
        calls.append(1)
        raise RuntimeError("this one is broken")

    before = dict(os.environ)
    expected = export_onnx(net, "birds", tmp_path / "whole.onnx")
    monkeypatch.setitem(optimizer._optimizers, "broken", fails)
    assert export_onnx(net, "birds", tmp_path / "m.onnx") == pytest.approx(expected, abs=1e-6)
    assert len(calls) > 1
    assert dict(os.environ) == before


@pytest.mark.parametrize("kind", ["float64", "uint8", "list", "dict"])
def test_samples_of_any_kind_that_keras_takes_are_compared(kind, net, tmp_path):
    x = np.abs(images(3) * 50)
    sample = {"list": [x], "dict": {"image": x}}.get(kind)
    sample = x.astype(kind) if sample is None else sample
    manifest = export_all(net, tmp_path, tasks=["birds"], samples={"birds": sample})
    assert manifest["tasks"][0]["compared_inputs"] == 7


def test_a_batch_normalised_later_task_is_exported_with_its_own_statistics(tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    export_all(net, tmp_path)
    x = images(8)
    apart = answer(tmp_path / "model_task1.onnx", x) - answer(tmp_path / "model_task2.onnx", x)
    assert np.abs(apart).max() > 1e-3


def test_the_file_runs_with_nothing_but_onnxruntime(net, tmp_path):
    export_onnx(net, "birds", tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", images())
    code = (
        "import sys, numpy, onnxruntime\n"
        f"s = onnxruntime.InferenceSession({str(tmp_path / 'm.onnx')!r})\n"
        f"y = s.run(None, {{'image': numpy.load({str(tmp_path / 'x.npy')!r})}})[0]\n"
        "assert not {'tensorflow', 'keras', 'packnet_tf'} & set(sys.modules)\n"
        "print(y.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(5, 3)"


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "bfloat16", *slow("mixed_bfloat16", "float16", "float64")]
)
def test_a_trunk_trained_in_another_precision_is_exported_in_float32(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    net = packed(conv_trunk(), one=0.5, two=0.5)
    keras.config.set_dtype_policy("float32")
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-5
    assert answer(tmp_path / "m.onnx", images()).dtype == np.float32
    export_bundle(net, tmp_path / "bundle")
    shared = answer(tmp_path / "bundle" / "model_task1.onnx", images())
    assert np.array_equal(shared, answer(tmp_path / "m.onnx", images()))
    half = logits(net.task_model("one"), images()).astype("float32")
    np.testing.assert_allclose(answer(tmp_path / "m.onnx", images()), half, rtol=0.1, atol=0.05)


def test_an_input_that_numpy_has_no_arrays_of_is_refused(tmp_path):
    inputs = keras.Input((4,), dtype="bfloat16", name="signal")
    net = packed(keras.Model(inputs, layers.Dense(3)(inputs)), one=0.5)
    with pytest.raises(ValueError) as error:
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert str(error.value) == (
        "Cannot export task 'one': its input 'signal' is bfloat16, which NumPy and onnxruntime "
        "have no arrays of. Build the trunk on keras.Input(shape), whose float32 its layers cast "
        "by themselves."
    )


@pytest.mark.parametrize("name", ["Vögel", "_x"])
def test_tasks_of_any_name_are_exported(name, tmp_path):
    net = packed(mlp_trunk(), **{name: 0.5})
    export_all(net, tmp_path)
    x = np.ones((2, 12), "float32")
    np.testing.assert_allclose(
        answer(tmp_path / "model_task1.onnx", x), net.task_model(name)(x), atol=1e-5
    )


def test_layers_that_the_plain_converter_fails_on_are_exported(tmp_path):
    # Statistics of a Normalization become inputs, grouped convolutions calls, exact GELU Erfc.
    inputs = keras.Input((8, 8, 4))
    x = layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])(inputs)
    x = layers.Conv2D(8, 3, groups=4, activation="gelu", name="grouped")(x)
    trunk = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    net = packed(trunk, one=0.5)
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-5
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [value.name for value in graph.input] == ["image"]
    assert {node.domain for node in graph.node} == {""}


def test_unknown_and_open_tasks_are_named_in_the_error(net, tmp_path):
    with pytest.raises(ValueError, match="no committed task 'dogs'") as caught:
        export_onnx(net, "dogs", tmp_path / "m.onnx")
    assert "Committed tasks: 'birds', 'cars', 'flowers'." in str(caught.value)
    empty = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError, match=r"no committed task to export.*net\.commit\(\) first"):
        export_all(empty, tmp_path)


def test_a_damaged_manifest_is_named(net, tmp_path):
    (tmp_path / "manifest.json").write_text("[1, 2")
    with pytest.raises(ValueError, match="is not a manifest of exported tasks"):
        export_all(net, tmp_path)


def test_input_names_must_fit_the_inputs(net, tmp_path):
    with pytest.raises(ValueError, match="input_names has 2 names, the model 1 inputs"):
        export_onnx(net, "birds", tmp_path / "m.onnx", input_names=["a", "b"])
