"""`update_from`: only what an earlier bundle lacks is written."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.export_helpers import answer, files, images, shared_file, without_hashes
from helpers.pack_helpers import conv_trunk, pack_task, packed, packed_layers
from packnet_tf.export import export_all, export_bundle, verify
from packnet_tf.export.bundle.shared_file import digest


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The bundle of a pack of two tasks, and the file of the pack."""
    folder = tmp_path_factory.mktemp("old")
    net = packed(conv_trunk(), one=0.5, two=0.5)
    net.save(folder / "pack.keras")
    export_bundle(net, folder / "bundle")
    return folder


@pytest.fixture
def net(old, tmp_path):
    shutil.copytree(old / "bundle", tmp_path / "old")
    return packnet_tf.load(old / "pack.keras")


def assert_answers_as_baked(net, tmp_path):
    """The bundle `old` answers for every task as a file of the task does."""
    baked = export_all(net, tmp_path / "baked")
    for name in (task["file"] for task in baked["tasks"]):
        ours, theirs = (answer(tmp_path / kind / name, images(net)) for kind in ("old", "baked"))
        assert np.array_equal(ours, theirs)


def test_it_holds_the_new_tasks_alone_and_completes_the_earlier_bundle(net, tmp_path):
    before = files(tmp_path / "old")
    pack_task(net, "three", seed=50)
    pack_task(net, "four", 0, seed=60)
    manifest = export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    changed = [
        "manifest.json", "model_task3.onnx", "model_task4.onnx",
        "shared_task3.data", "shared_task4.data",
    ]  # fmt: skip
    assert without_hashes(manifest["changed"]) == changed
    assert sorted(files(tmp_path / "new")) == manifest["changed"]
    assert files(tmp_path / "old") == before
    shutil.copytree(tmp_path / "new", tmp_path / "old", dirs_exist_ok=True)
    assert_answers_as_baked(net, tmp_path)


def test_its_size_is_that_of_the_new_weights(net, tmp_path):
    pack_task(net, "three", 0.5, seed=50)
    manifest = export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    entry = next(f for f in manifest["shared"] if "_task3-" in f["file"])
    whole = net.capacity().sum()
    owned, total = whole["owned"]["three"], whole["total"]
    assert 4 * owned <= entry["bytes"] <= 4 * owned + total / 8 + 80 * len(entry["tensors"])


def test_updates_follow_updates_in_the_same_folder(net, tmp_path):
    for number, name in enumerate(("three", "four"), start=3):
        before = files(tmp_path / "old")
        pack_task(net, name, 0.5, seed=10 * number)
        manifest = export_bundle(net, tmp_path / "old", update_from=tmp_path / "old")
        after = files(tmp_path / "old")
        changed = {name for name, data in after.items() if before.get(name) != data}
        assert changed == set(manifest["changed"])
        assert not any(name.startswith("shared-") for name in changed)
    assert_answers_as_baked(net, tmp_path)


def test_a_manifest_that_misplaces_weights_is_named(net, tmp_path):
    pack_task(net, "three", seed=50)
    path = tmp_path / "old" / "manifest.json"
    manifest = json.loads(path.read_text())
    tensors = manifest["shared"][0]["tensors"]
    manifest["shared"][0]["tensors"] = dict.fromkeys(tensors, 0)
    path.write_text(json.dumps(manifest))
    text = rf"differs from Keras .* Or the manifest of the bundle '{tmp_path / 'old'}' is damaged"
    with pytest.raises(ValueError, match=text):
        export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    assert not (tmp_path / "new").exists()


def test_an_interrupted_update_leaves_the_earlier_bundle_as_it_was(net, tmp_path, monkeypatch):
    before = files(tmp_path / "old")
    pack_task(net, "three", seed=50)
    replace = os.replace

    def interrupted(source, target):
        if str(target).endswith("model_task3.onnx"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(net, tmp_path / "old", update_from=tmp_path / "old")
    assert files(tmp_path / "old") == before
    monkeypatch.undo()
    export_bundle(net, tmp_path / "old", update_from=tmp_path / "old")
    assert [v.problems for v in verify(net, tmp_path / "old")] == [[], [], []]


def test_what_the_folder_held_before_is_not_sent_with_it(net, tmp_path):
    export_all(packed(conv_trunk(), a=0.5, b=0.5, c=0.5, d=0.5), tmp_path / "new")
    pack_task(net, "three", seed=50)
    manifest = export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    assert sorted(files(tmp_path / "new")) == manifest["changed"]


def test_several_new_tasks_may_share_what_an_earlier_one_has_for_itself(tmp_path):
    trunk = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(128, 3, name="wide"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    net = packed(trunk, one=0.5)
    export_bundle(net, tmp_path)
    for name in ("two", "three"):
        pack_task(net, name, seed=len(name))
    manifest = export_bundle(net, tmp_path, update_from=tmp_path)
    bias = keras.ops.convert_to_numpy(net.task_model("one").trunk.get_layer("wide").bias)
    held = [digest(bias) in file["tensors"] for file in manifest["shared"]]
    assert held == [False, True, False]
    assert [v.problems for v in verify(net, tmp_path)] == [[], [], []]


def test_nothing_new_is_nothing_to_send(net, tmp_path):
    manifest = export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    assert manifest["changed"] == ["manifest.json"]
    assert json.loads((tmp_path / "new" / "manifest.json").read_text()) == manifest


def test_a_damaged_earlier_bundle_is_refused_by_name(net, tmp_path):
    path = shared_file(tmp_path / "old")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    pack_task(net, "three", seed=50)
    with pytest.raises(ValueError, match=f"'{path.name}': its checksum is not the manifest's"):
        export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    assert not (tmp_path / "new").exists()


def test_a_bundle_of_another_pack_is_refused(net, tmp_path):
    other = packed(conv_trunk(), one=0.6, two=0.5, three=0.5)
    with pytest.raises(ValueError, match=r"'model_task1\.onnx' of the earlier bundle"):
        export_bundle(other, tmp_path / "new", update_from=tmp_path / "old")
    other = packed(conv_trunk(), one=0.6, two=0.5)  # nothing new, and yet another one
    with pytest.raises(ValueError, match=r"'model_task1\.onnx' of the earlier bundle"):
        export_bundle(other, tmp_path / "new", update_from=tmp_path / "old")
    other = packed(conv_trunk(), one=0.5, cats=0.5)
    with pytest.raises(ValueError, match="has the tasks 'one', 'two', and the pack begins with"):
        export_bundle(other, tmp_path / "new", update_from=tmp_path / "old")


def test_a_task_that_was_released_and_packed_again_is_another_one(net, tmp_path):
    net.release("two")
    pack_task(net, "two", seed=99)
    with pytest.raises(ValueError, match="of the earlier bundle does not hold"):
        export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    net.release("two")
    pack_task(net, "two", seed=50)
    export_bundle(net, tmp_path / "newer")
    pack_task(net, "three", seed=51)
    export_bundle(net, tmp_path / "newer", update_from=tmp_path / "newer")
    net.release("three")
    pack_task(net, "three", seed=52)
    with pytest.raises(ValueError, match=r"'model_task3\.onnx' of the earlier bundle does not"):
        export_bundle(net, tmp_path / "newer", update_from=tmp_path / "newer")


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("change", "file"),
    [
        ("head", r"model_task2\.onnx"),
        ("classes", r"model_task2\.onnx"),
        ("kernel", r"shared-\w+\.data"),
    ],
)
def test_so_is_one_that_differs_in_one_thing_alone(change, file, later, tmp_path):
    net = packed(conv_trunk(), one=0.5)
    head = layers.Dense(3)
    head.build(net.task_model("one").trunk.output_shape)

    def pack(changed=None):
        classes = ["a", "b", "c" if changed != "classes" else "d"]
        model = net.add_task("two", head, classes=classes)
        if changed == "head":
            model.head.bias.assign([1, 0, 0])
        if changed == "kernel":
            kernel = packed_layers(model)[0].packed_weights["kernel"].trainable
            kernel.assign(2 * kernel)
        net.prune(0.5)
        net.commit()

    pack()
    export_bundle(net, tmp_path / "old")
    net.release("two")
    pack(change)
    if later:
        pack_task(net, "three")
    with pytest.raises(ValueError, match=f"'{file}' of the earlier bundle does not hold"):
        export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")


def test_a_pack_read_from_its_file_is_the_same_pack(net, tmp_path):
    net.save(tmp_path / "pack.keras")
    net = packnet_tf.load(tmp_path / "pack.keras")
    manifest = export_bundle(net, tmp_path / "new", update_from=tmp_path / "old")
    assert manifest["changed"] == ["manifest.json"]


def test_a_folder_without_a_bundle_is_refused(net, tmp_path):
    with pytest.raises(ValueError, match="holds no bundle to update"):
        export_bundle(net, tmp_path / "new", update_from=tmp_path / "nowhere")
    export_all(net, tmp_path / "baked")
    with pytest.raises(ValueError, match="holds no bundle to update"):
        export_bundle(net, tmp_path / "new", update_from=tmp_path / "baked")
