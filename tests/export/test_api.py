"""Promise 8: an exported task equals its Keras view."""

import contextlib
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
from helpers.export_helpers import answer, files
from helpers.pack_helpers import (
    TRUNKS,
    conv_trunk,
    logits,
    mlp_trunk,
    packed,
    packed_layers,
)
from packnet_tf.export import export_all, export_bundle, export_onnx, verify
from packnet_tf.export.convert import to_onnx
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.task_graph import TaskGraph


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


def images(count=5):
    return np.random.default_rng(3).normal(size=(count, 6, 6, 1)).astype("float32")


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


def test_an_input_called_as_an_output_gets_another_name(tmp_path):
    logits, mask = keras.Input((4,), name="logits"), keras.Input((4,), name="probabilities_1")
    trunk = keras.Model([logits, mask], layers.Dense(4)(logits * mask))
    export_onnx(packed(trunk, one=0.5), "one", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    names = [entry.name for entry in session.get_inputs()]
    assert names == ["logits_input", "probabilities_1_input"]
    assert [entry.name for entry in session.get_outputs()] == ["logits"]


@pytest.mark.parametrize("steps", [5, None], ids=["five steps", "any number"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Dense(4), (3,)),
        (lambda: layers.Conv2D(4, 3), (8, 8, 3)),
        (lambda: layers.LSTM(4), (6, 3)),
    ],
    ids=["dense", "convolution", "recurrent"],
)
def test_a_layer_called_at_every_step_answers_for_any_number_of_steps(
    layer, shape, steps, tmp_path
):
    inputs = keras.Input((steps, *shape))
    x = layers.Masking(0.5)(inputs) if len(shape) == 1 else inputs
    x = layers.TimeDistributed(layer())(x)
    x = layers.TimeDistributed(layers.Flatten())(x)
    net = packed(keras.Model(inputs, layers.GRU(3)(x)), one=0.5)
    export_onnx(net, "one", tmp_path / "m.onnx", batch_size=32)
    model = onnx.load(tmp_path / "m.onnx")
    assert sum(node.op_type in ("Conv", "LSTM") for node in model.graph.node) == (len(shape) > 1)
    for count in (steps,) if steps else (7, 32, 64):
        x = np.random.default_rng(count).normal(size=(32, count, *shape)).astype("float32")
        x[:, 2:4] = 0.5
        expected = logits(net.task_model("one"), x)
        np.testing.assert_allclose(answer(tmp_path / "m.onnx", x), expected, 1e-4, 1e-5)


def test_a_graph_that_onnxruntime_cannot_compute_is_refused_by_its_task(tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx, "_without_loops", contextlib.nullcontext)
    frames = keras.Input((None, 8, 8, 3))  # the converter loses the layout of images in a loop
    x = layers.TimeDistributed(layers.Conv2D(4, 3))(frames)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    net = packed(keras.Model(frames, layers.GlobalAveragePooling1D()(x)), one=0.5)
    with pytest.raises(ValueError, match=r"^Cannot export task 'one': onnxruntime ") as caught:
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert "not fixed, (None, None, 8, 8, 3): build the trunk with fixed ones" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


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


def test_the_same_pack_gives_files_that_answer_bit_for_bit_alike(net, tmp_path):
    first = export_all(net, tmp_path / "a")
    second = export_all(net, tmp_path / "b")
    for one, other in zip(first["tasks"], second["tasks"], strict=True):
        assert np.array_equal(
            answer(tmp_path / "a" / one["file"], images()),
            answer(tmp_path / "b" / other["file"], images()),
        )


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


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_sequential_models_within_one_do_not_round_either(policy, tmp_path):
    """Keras makes their inputs in the precision of their first layer."""
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((8, 8, 1))
    features = keras.Sequential([layers.Conv2D(8, 3), layers.ReLU()])(inputs)
    trunk = keras.Model(inputs, layers.GlobalAveragePooling2D()(features))
    net = packnet_tf.PackNet(trunk)
    net.add_task("one", keras.Sequential([layers.Dense(16), layers.Dense(3, dtype="float32")]))
    net.commit()
    keras.config.set_dtype_policy("float32")
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-5
    export_bundle(net, tmp_path / "bundle")


def test_a_pack_whose_weights_were_changed_is_not_exported(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    export_all(net, tmp_path)
    files_before = files(tmp_path)
    model = net.task_model("one")
    wrapper = keras.Sequential([keras.Input(model.input_shape[1:]), model])
    wrapper.set_weights([0.5 * w if w.dtype == np.float32 else w for w in wrapper.get_weights()])
    for refused in (
        lambda: export_all(net, tmp_path),
        lambda: export_onnx(net, "one", tmp_path / "m.onnx"),
        lambda: export_bundle(net, tmp_path / "bundle"),
        lambda: verify(net, tmp_path),
    ):
        with pytest.raises(RuntimeError, match=r"task 'one' .* have changed since the commit"):
            refused()
    assert files(tmp_path) == files_before


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


def test_unknown_and_open_tasks_are_named_in_the_error(net, tmp_path):
    with pytest.raises(ValueError, match="no committed task 'dogs'") as caught:
        export_onnx(net, "dogs", tmp_path / "m.onnx")
    assert "Committed tasks: 'birds', 'cars', 'flowers'." in str(caught.value)
    empty = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError, match=r"no committed task to export.*net\.commit\(\) first"):
        export_all(empty, tmp_path)


def test_input_names_must_fit_the_inputs(net, tmp_path):
    with pytest.raises(ValueError, match="input_names has 2 names, the model 1 inputs"):
        export_onnx(net, "birds", tmp_path / "m.onnx", input_names=["a", "b"])
