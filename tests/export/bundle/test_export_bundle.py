"""`export_bundle`: T tasks in the space of one, each answering as its baked file."""

import json
import os
import shutil
import warnings

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import numpy_helper

import packnet_tf
from helpers.cases import slow
from helpers.export_helpers import answer, answers, files, images, net_of, without_hashes
from helpers.pack_helpers import conv_trunk, mlp_trunk, pack_task, packed
from packnet_tf.export import export_all, export_bundle, task_graph, verify
from packnet_tf.export.runtime import session


def test_every_task_answers_bit_for_bit_as_its_baked_file(tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5, three=0.5, four=0)
    export_all(net, tmp_path / "baked")
    manifest = export_bundle(net, tmp_path / "bundle")
    x = images(net)
    for task in manifest["tasks"]:
        assert np.array_equal(
            answer(tmp_path / "bundle" / task["file"], x),
            answer(tmp_path / "baked" / task["file"], x),
        )
        assert task["relative_difference"] < 1e-6


@pytest.mark.parametrize("reuse", [*slow("none", ["one"]), ["one", "three"]])
def test_a_task_that_sees_some_of_the_others_answers_as_its_baked_file(reuse, tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    export_bundle(net, tmp_path / "bundle")
    pack_task(net, "three", seed=20)
    pack_task(net, "four", seed=30, reuse=reuse)
    pack_task(net, "five", 0, seed=40)
    export_bundle(net, tmp_path / "bundle", update_from=tmp_path / "bundle")
    export_bundle(net, tmp_path / "whole")
    manifest = export_all(net, tmp_path / "baked")
    x = images(net)
    for task in manifest["tasks"]:
        expected = answer(tmp_path / "baked" / task["file"], x)
        for folder in ("bundle", "whole"):
            assert np.array_equal(answer(tmp_path / folder / task["file"], x), expected)
    for folder in ("bundle", "baked"):
        assert not [v.problems for v in verify(net, tmp_path / folder) if v.problems]


def test_an_update_with_other_answers_than_its_bundle_is_warned_of(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    for name in ("one", "two"):
        net.add_task(name, layers.Dense(3), classes=["a", "b", "c"])
        net.prune(0.5)
        net.commit()
        if name == "one":
            export_bundle(net, tmp_path / "bundle", verbose=False)
    given = {"update_from": tmp_path / "bundle", "verbose": False}
    with pytest.warns(UserWarning, match="with outputs='probabilities', and 'model_task1.onnx' of"):
        export_bundle(net, tmp_path / "new", outputs="probabilities", **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        export_bundle(net, tmp_path / "same", **given)


@pytest.mark.parametrize("tasks", [1, *slow(2), 5, *slow(17)])
def test_any_number_of_tasks_fits(tasks, tmp_path):
    net = packed(mlp_trunk(), **{f"task{number}": 0.9 for number in range(tasks)})
    export_all(net, tmp_path / "baked")
    manifest = export_bundle(net, tmp_path / "bundle")
    assert manifest["shared"][0]["bits"] == {1: 2, 2: 2, 5: 4, 17: 8}[tasks]
    x = images(net)
    for task in manifest["tasks"]:
        assert np.array_equal(
            answer(tmp_path / "bundle" / task["file"], x),
            answer(tmp_path / "baked" / task["file"], x),
        )


@pytest.mark.parametrize("network", ["VGG16", "MobileNetV2"])
@pytest.mark.slow
def test_four_tasks_take_at_most_1_07_baked_files_and_what_is_their_own(network, tmp_path):
    trunk = getattr(keras.applications, network)(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    net = packnet_tf.PackNet(trunk, norms="shared")
    for number, ratio in enumerate((0.75, 2 / 3, 0.5, 0)):
        pack_task(net, f"task{number}", ratio, seed=number, scale=0.01)
    baked = export_all(net, tmp_path / "baked", tasks=["task3"])["tasks"][0]
    export_bundle(net, tmp_path / "bundle")
    heads = 4 * 4 * (trunk.output_shape[-1] * 3 + 3)
    size = sum(path.stat().st_size for path in (tmp_path / "bundle").iterdir())
    assert size <= 1.07 * baked["bytes"] + heads
    x = images(net)
    assert np.array_equal(
        answer(tmp_path / "bundle" / "model_task4.onnx", x),
        answer(tmp_path / "baked" / "model_task4.onnx", x),
    )


def test_weights_and_owners_lie_in_one_file_and_heads_in_the_graphs(tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    manifest = export_bundle(net, tmp_path)
    assert without_hashes(files(tmp_path)) == [
        "manifest.json", "model_task1.onnx", "model_task2.onnx", "shared.data",
    ]  # fmt: skip
    [shared] = manifest["shared"]
    assert shared["file"] == f"shared-{shared['sha256'][:12]}.data"
    assert (shared["tasks"], shared["bits"]) == ([1, 2], 2)
    numbers = net.capacity().sum()["total"]
    assert 4 * numbers <= shared["bytes"] <= 4.25 * numbers + 64 * len(shared["tensors"])
    graph = onnx.load(tmp_path / "model_task1.onnx", load_external_data=False).graph
    within = [t for t in graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    assert max(np.prod(t.dims) * 4 for t in within) <= 4 * 256 * 4  # a table of 256 rows, a head


def test_free_weights_are_written_as_zero(tmp_path):
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    export_bundle(net, tmp_path)
    owner = net.owners()["first"]
    values = keras.ops.convert_to_numpy(net.state.weights["first"].packed)
    assert (values[owner == 0] != 0).all()
    model = onnx.load(tmp_path / "model_task1.onnx")
    shared = [numpy_helper.to_array(t) for t in model.graph.initializer if t.dims == [12, 16]]
    assert len(shared) == 1
    assert np.array_equal(shared[0], np.where(owner > 0, values, 0))


def test_shared_biases_and_norms_are_written_once(tmp_path):
    trunk = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(128, 3, name="wide"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    net = packed(trunk, one=0.5, two=0.5)
    own = export_bundle(net, tmp_path / "own")
    net = packnet_tf.PackNet(trunk, norms="shared")
    pack_task(net, "one")
    pack_task(net, "two")
    shared = export_bundle(net, tmp_path / "shared")
    norms = 2 * 128 * 4  # what the converter makes of a normalisation: a gain and an offset
    names = 2 * 100  # a reference takes that much at most
    for task in (0, 1):
        saved = own["tasks"][task]["bytes"] - shared["tasks"][task]["bytes"]
        assert norms - names <= saved <= norms
    added = shared["shared"][0]["bytes"] - own["shared"][0]["bytes"]
    assert norms <= added <= norms + 2 * 64


def test_the_same_pack_gives_the_same_bytes(tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    net.save(tmp_path / "pack.keras")
    export_bundle(net, tmp_path / "a")
    export_bundle(packnet_tf.load(tmp_path / "pack.keras"), tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_optimized_files_stand_alone_and_answer_alike(tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    manifest = export_bundle(net, tmp_path / "bundle", optimized=True)
    x = images(net)
    for task in manifest["tasks"]:
        [described] = task["external"]
        assert described["file"] == task["file"].replace(".onnx", ".ort")
        (tmp_path / "alone").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "bundle" / described["file"], tmp_path / "alone")
        np.testing.assert_allclose(
            answer(tmp_path / "alone" / described["file"], x),
            answer(tmp_path / "bundle" / task["file"], x),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_optimized_file_that_answers_otherwise_is_not_written(precision, tmp_path, monkeypatch):
    net = packed(mlp_trunk(), one=0.5)

    def optimize_another(path, target):
        model = onnx.load(path, load_external_data=False)
        [bias] = [t for t in model.graph.initializer if list(t.dims) == [3]]
        bias.CopyFrom(numpy_helper.from_array(np.float32([100, 0, 0]), bias.name))
        onnx.save(model, path.with_name("another.onnx"))
        session.optimize(path.with_name("another.onnx"), target)

    monkeypatch.setattr(task_graph, "optimize", optimize_another)
    with pytest.raises(ValueError, match="The ONNX graph of task 'one' differs from Keras by"):
        export_bundle(net, tmp_path / "bundle", optimized=True, precision=precision)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "kind", ["recurrent", *slow("loop", "attention", "embedding"), "two_inputs"]
)
def test_trunks_of_other_kinds_share_what_they_can(kind, tmp_path):
    net = net_of(kind)
    export_all(net, tmp_path / "baked")
    manifest = export_bundle(net, tmp_path / "bundle")
    for task in manifest["tasks"]:
        expected = answers(tmp_path / "baked" / task["file"])
        for one, other in zip(expected, answers(tmp_path / "bundle" / task["file"]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_killed_between_any_two_files_every_graph_answers_as_before_or_as_after(tmp_path):
    """The folder is put together as a killed export leaves it: some files new, the others old."""
    before = packed(conv_trunk(), one=0.5, two=0.5)
    after = packed(conv_trunk(), one=0.25, two=0.5)
    x = images(before)
    for net, name in ((before, "old"), (after, "new")):
        export_bundle(net, tmp_path / name)
    known = {
        name: [answer(tmp_path / kind / name, x).tobytes() for kind in ("old", "new")]
        for name in ("model_task1.onnx", "model_task2.onnx")
    }
    written = [".data", ".onnx", ".json"]  # in this order
    new = sorted((tmp_path / "new").iterdir(), key=lambda p: (written.index(p.suffix), p.name))
    for count in range(len(new) + 1):
        shutil.copytree(tmp_path / "old", tmp_path / "mixed", dirs_exist_ok=True)
        for path in new[:count]:
            shutil.copy(path, tmp_path / "mixed")
        for name, answers_known in known.items():
            assert answer(tmp_path / "mixed" / name, x).tobytes() in answers_known
        export_bundle(after, tmp_path / "mixed")
        assert sorted(files(tmp_path / "mixed")) == [path.name for path in sorted(new)]
        shutil.rmtree(tmp_path / "mixed")


@pytest.mark.parametrize("last", ["model_task1.onnx", "model_task2.onnx", "manifest.json"])
def test_an_interrupted_export_puts_back_what_it_replaced(last, tmp_path, monkeypatch):
    export_bundle(packed(conv_trunk(), one=0.5, two=0.5), tmp_path)
    before, replace = files(tmp_path), os.replace

    def interrupted(source, target):
        replace(source, target)
        if str(target) == str(tmp_path / last) and not str(source).endswith(".old"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(packed(conv_trunk(), one=0.25, two=0.5), tmp_path)
    assert files(tmp_path) == before


def test_files_that_the_export_did_not_write_stay(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    export_bundle(net, tmp_path)
    (tmp_path / "shared-0123456789ab.data").write_bytes(b"of someone else")
    (tmp_path / "notes.data").write_bytes(b"mine")
    mine = json.loads((tmp_path / "manifest.json").read_text())
    mine["tasks"][0]["external"] = [{"file": "notes.data", "bytes": 4, "sha256": "0" * 64}]
    (tmp_path / "manifest.json").write_text(json.dumps(mine))
    export_all(net, tmp_path)
    assert sorted(files(tmp_path)) == [
        "manifest.json", "model_task1.onnx", "notes.data", "shared-0123456789ab.data",
    ]  # fmt: skip


def test_a_bundle_over_files_of_tasks_takes_their_place(tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    export_all(net, tmp_path)
    export_bundle(packed(conv_trunk(), one=0.5), tmp_path)
    assert without_hashes(files(tmp_path)) == ["manifest.json", "model_task1.onnx", "shared.data"]
    export_all(net, tmp_path)
    names = ["manifest.json", "model_task1.onnx", "model_task2.onnx"]
    assert sorted(files(tmp_path)) == names
