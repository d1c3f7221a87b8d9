"""Bundles that compute with the integers that their tasks share."""

import shutil

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

import packnet_tf
from helpers.export_helpers import answers, files, shared_file
from helpers.int8_sessions import session_of
from helpers.pack_helpers import pack_task, packed, packed_layers
from packnet_tf.export import export_all, export_bundle, verify
from packnet_tf.export.bundle import calibrated, shared_weights
from packnet_tf.tasks.storage import _with_digests

INT8 = {"precision": "int8", "verbose": False}


def conv_trunk():
    """Convolutions of every kind that have a kernel; normalisations with negative gains."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    x = layers.Conv2D(24, 1, activation="relu", name="middle")(x)
    x = layers.Conv2DTranspose(12, 2, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    trunk = keras.Model(inputs, layers.Dense(10, activation="relu")(x))
    rng = np.random.default_rng(0)
    for layer in trunk.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(rng.choice([-1.5, -0.5, 0.7, 1.2], layer.gamma.shape))
            layer.beta.assign(rng.normal(size=layer.beta.shape))
    return trunk


def dense_trunk():
    inputs = keras.Input((12,))
    x = layers.Dense(16, activation="relu")(inputs)
    x = layers.BatchNormalization(momentum=0.5)(layers.Dense(16, use_bias=False)(x))
    return keras.Model(inputs, layers.ReLU()(x))


def sequence_trunk():
    """A packed embedding and attention, whose kernels stay in float32."""
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 16)(inputs)
    x = layers.add([x, layers.MultiHeadAttention(2, 8)(x, x)])
    return keras.Model(inputs, layers.Dense(8)(layers.GlobalAveragePooling1D()(x)))


TRUNKS = {"conv": conv_trunk, "dense": dense_trunk, "sequence": sequence_trunk, "stem": conv_trunk}


OPTIONS = {"sequence": {"embeddings": "packed"}, "stem": {"stem": "middle"}}


def net_of(kind):
    net = packnet_tf.PackNet(TRUNKS[kind](), **OPTIONS.get(kind, {}))
    for seed, name in enumerate(("one", "two")):
        pack_task(net, name, 0.5, seed=seed)
    return net


def typical(net, count=64):
    """Typical inputs of a pack."""
    model = net.task_model(net.tasks[0])
    rng, shape = np.random.default_rng(3), model.input_shape[1:]
    if keras.backend.is_int_dtype(model.inputs[0].dtype):
        return rng.integers(0, 9, (count, *shape)).astype("int32")
    return rng.normal(size=(count, *shape)).astype("float32")


@pytest.fixture
def baked(monkeypatch):
    """The graphs, by task, whose integers are constants, as the export has calculated them."""
    graphs, original = {}, calibrated.baked_graph

    def spy(task, *arguments):
        proto, read = original(task, *arguments)
        graphs[task.task] = proto.SerializeToString()
        return proto, read

    monkeypatch.setattr(calibrated, "baked_graph", spy)
    return graphs


def assert_as_baked(manifest, folder, graphs, x):
    """Files answer as graphs with baked integers do, bit for bit."""
    for entry in manifest["tasks"]:
        session = session_of(graphs[entry["task"]])
        [expected] = session.run(None, {session.get_inputs()[0].name: x})
        [found] = answers(folder / entry["file"], x)
        assert np.array_equal(found, expected), entry["task"]


def pack_large_task(net, name, times):
    """Packs a task whose weights are several times as large."""
    model = net.add_task(name, layers.Dense(3))
    for layer in packed_layers(model):
        for weight in layer.packed_weights.values():
            weight.trainable.assign(times * weight.trainable)
    net.prune(0.5)
    net.commit()


# What tasks answer


@pytest.mark.parametrize("kind", TRUNKS)
def test_tasks_answer_as_files_with_the_same_integers(kind, baked, tmp_path):
    net = net_of(kind)
    x = typical(net)
    manifest = export_bundle(net, tmp_path, calibration=x, **INT8)
    pack_large_task(net, "large", 3)
    pack_task(net, "overlay", seed=5, overlay=0.1)
    manifest = export_bundle(net, tmp_path, calibration=x, update_from=tmp_path, **INT8)
    assert len(baked) == len(manifest["tasks"]) == 4
    assert_as_baked(manifest, tmp_path, baked, x)
    assert [verdict.problems for verdict in verify(net, tmp_path)] == [[]] * 4
    exact = export_all(net, tmp_path / "exact", verbose=False)
    for entry in exact["tasks"]:
        [a], [b] = (answers(folder / entry["file"], x) for folder in (tmp_path, tmp_path / "exact"))
        assert np.abs(a - b).max() < 0.1 * np.abs(b).max()


def test_convolutions_compute_with_integers(tmp_path):
    net = net_of("conv")
    manifest = export_bundle(net, tmp_path, calibration=typical(net), **INT8)
    pack_large_task(net, "large", 3)
    manifest = export_bundle(net, tmp_path, calibration=typical(net), update_from=tmp_path, **INT8)
    for entry in manifest["tasks"]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(tmp_path / entry["file"], options)
        loaded = onnx.load(tmp_path / "optimized.onnx")
        kinds = [node.op_type for node in loaded.graph.node]
        assert kinds.count("QLinearConv") == 3
        assert "Conv" not in kinds
        assert not {"Where", "Round", "Mul"} & set(kinds)


def test_the_weights_of_a_task_are_those_that_it_sees(tmp_path):
    """Integers of a second task do not depend on the calibration of the first."""
    net = net_of("conv")
    x = typical(net)
    first = export_bundle(net, tmp_path / "a", calibration={"one": x, "two": x}, **INT8)
    other = export_bundle(net, tmp_path / "b", calibration={"one": 3 * x, "two": x}, **INT8)
    assert first["shared"] == other["shared"]
    names = [entry["file"] for entry in first["tasks"]]
    same = [
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in names
    ]
    assert same == [False, True]


# Updates


def test_an_update_leaves_the_earlier_files_as_they_are(tmp_path):
    net = net_of("conv")
    x = typical(net)
    export_bundle(net, tmp_path / "old", calibration=x, **INT8)
    before = files(tmp_path / "old")
    pack_large_task(net, "large", 3)
    update = export_bundle(
        net, tmp_path / "new", calibration=x, update_from=tmp_path / "old", **INT8
    )
    assert not set(update["changed"]) & {name for name in before if name != "manifest.json"}
    shutil.copytree(tmp_path / "new", tmp_path / "old", dirs_exist_ok=True)
    after = files(tmp_path / "old")
    assert all(after[name] == before[name] for name in before if name != "manifest.json")
    assert [verdict.problems for verdict in verify(net, tmp_path / "old")] == [[]] * 3
    again = export_bundle(
        net, tmp_path / "old", calibration=x, update_from=tmp_path / "old", **INT8
    )
    assert again["changed"] == ["manifest.json"]


def test_a_bundle_is_updated_in_its_own_form(tmp_path):
    net = net_of("dense")
    x = typical(net)
    export_bundle(net, tmp_path / "calibrated", calibration=x, **INT8)
    export_bundle(net, tmp_path / "restored", **INT8)
    pack_task(net, "three", seed=5)
    with pytest.raises(ValueError, match=r"is calibrated, .* is not calibrated\. Give calib"):
        export_bundle(net, tmp_path, update_from=tmp_path / "calibrated", **INT8)
    with pytest.raises(ValueError, match=r"is not calibrated, .* is calibrated\. Leave calib"):
        export_bundle(net, tmp_path, calibration=x, update_from=tmp_path / "restored", **INT8)


def test_bundles_that_do_not_say_their_form_restore_weights(tmp_path):
    net = net_of("dense")
    manifest = export_bundle(net, tmp_path, **INT8)
    text = (tmp_path / "manifest.json").read_text()
    for line in ('"calibrated": false,', '"calibrated": false'):
        text = text.replace(line, "")
    assert "calibrated" not in text
    (tmp_path / "manifest.json").write_text(text)
    pack_task(net, "three", seed=5)
    manifest = export_bundle(net, tmp_path, update_from=tmp_path, **INT8)
    assert len(manifest["shared"]) == 2
    assert [verdict.problems for verdict in verify(net, tmp_path)] == [[]] * 3


def test_changed_weights_are_refused(tmp_path):
    net = net_of("conv")
    x = typical(net)
    export_bundle(net, tmp_path / "old", calibration=x, **INT8)
    for weight in net.state.weights.values():
        weight.packed.assign(np.float32(1.01) * keras.ops.convert_to_numpy(weight.packed))
    # As a pack that was committed with these weights has it.
    net.state = _with_digests(net.state)
    problems = [problem for v in verify(net, tmp_path / "old") for problem in v.problems]
    assert any("is not what the pack gives for this task" in problem for problem in problems)
    with pytest.raises(ValueError, match="does not hold what the pack's earlier tasks own"):
        export_bundle(net, tmp_path / "new", calibration=x, update_from=tmp_path / "old", **INT8)


def test_a_damaged_bundle_is_refused(tmp_path):
    net = net_of("dense")
    x = typical(net)
    export_bundle(net, tmp_path, calibration=x, **INT8)
    path = shared_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    for verdict in verify(net, tmp_path):
        assert f"'{path.name}': its checksum" in verdict.problems[0]
    with pytest.raises(ValueError, match=f"'{path.name}': its checksum is not the manifest's"):
        export_bundle(net, tmp_path, calibration=x, update_from=tmp_path, **INT8)


# What is given


def test_a_task_without_typical_inputs_computes_in_float32(baked, tmp_path):
    net = net_of("conv")
    x = typical(net)
    manifest = export_bundle(net, tmp_path, calibration={"one": None, "two": x}, **INT8)
    assert [entry["calibrated"] for entry in manifest["tasks"]] == [False, True]
    assert_as_baked(manifest, tmp_path, baked, x)
    kinds = [node.op_type for node in onnx.load(tmp_path / "model_task1.onnx").graph.node]
    assert "QuantizeLinear" not in kinds
    assert [verdict.problems for verdict in verify(net, tmp_path)] == [[], []]


def test_calibration_is_for_int8_alone(tmp_path):
    net = net_of("dense")
    x = typical(net)
    with pytest.raises(ValueError, match="calibration is for 'int8', not for 'float16'"):
        export_bundle(net, tmp_path, precision="float16", calibration=x)
    with pytest.raises(ValueError, match=r"all 8 bits of int8\. Leave reduce_range out"):
        export_bundle(net, tmp_path, precision="int8", reduce_range=True, calibration=x)
    with pytest.raises(ValueError, match="calibration has nothing for the task 'two'"):
        export_bundle(net, tmp_path, precision="int8", calibration={"one": x})


# What it takes


@pytest.mark.parametrize(("count", "goal"), [(4, 0.33), (10, 0.40)])
def test_shared_integers_take_a_byte_a_weight_and_the_bits_of_their_owners(count, goal, tmp_path):
    inputs = keras.Input((8, 8, 16))
    x = layers.Conv2D(128, 3, activation="relu")(inputs)
    x = layers.Dense(256)(layers.GlobalAveragePooling2D()(x))
    net = packed(keras.Model(inputs, x), **{f"task{n}": 0.5 for n in range(count)})
    manifest = export_bundle(net, tmp_path, calibration=typical(net), **INT8)
    [shared] = manifest["shared"]
    assert shared["calibrated"]
    assert shared["bytes"] <= goal * 4 * net.capacity().sum()["total"]


def test_a_kernel_is_rounded_once_for_all_tasks(monkeypatch, tmp_path):
    net = net_of("dense")
    calls, encode = [], shared_weights.encode
    monkeypatch.setattr(
        shared_weights, "encode", lambda *given: [calls.append(given), encode(*given)][1]
    )
    export_bundle(net, tmp_path / "restored", **INT8)
    assert len(calls) == len(net.state.weights) == 2
    export_bundle(net, tmp_path / "calibrated", calibration=typical(net), **INT8)
    assert len(calls) == 4
