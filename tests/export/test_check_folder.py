"""`verify`: a folder of exported files against the pack."""

import json
import re
import shutil

import numpy as np
import onnx
import pytest
from keras import layers
from onnx import numpy_helper

import packnet_tf
from helpers.export_helpers import shared_file
from helpers.onnx_files import blank
from helpers.pack_helpers import conv_trunk, functional, mlp_trunk, pack_task, packed
from packnet_tf.export import export_all, export_bundle, verify
from packnet_tf.export.manifest import ROUTER, SHARED, TASK, read
from packnet_tf.export.options import recorded_options


@pytest.fixture(scope="module")
def net():
    return packed(conv_trunk(), one=0.5, two=0.5)


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_all(net, folder / "files")
    export_all(net, folder / "half", precision="float16", outputs="top_k", top_k=2)
    export_all(net, folder / "int8", precision="int8")
    export_bundle(net, folder / "bundle")
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "copy")
    return tmp_path / "copy"


def problems(net, directory, **kwargs):
    return {v.file: v.problems for v in verify(net, directory, **kwargs)}


@pytest.mark.parametrize("kind", ["files", "half", "int8", "bundle"])
def test_what_was_just_exported_is_as_it_should_be(kind, net, exported):
    seen = []
    x = np.random.default_rng(0).normal(size=(7, 6, 6, 1)).astype("float32")
    verdicts = verify(net, exported / kind, samples={"one": x}, progress=seen.append)
    assert seen == ["one", "two"]
    assert [v.problems for v in verdicts] == [[], []]
    assert [v.compared_inputs for v in verdicts] == [11, 4]
    if kind in ("files", "bundle"):
        assert max(v.relative_difference for v in verdicts) < 1e-6
    whole = net.capacity().sum()
    unseen = whole["total"] - whole["owned"]["one"]
    assert verdicts[0].zeros == (unseen if kind in ("files", "half") else None)


def test_it_holds_after_later_tasks_and_a_loaded_pack(exported, net, tmp_path):
    net.save(tmp_path / "pack.keras")
    later = packnet_tf.load(tmp_path / "pack.keras")
    pack_task(later, "three", 0, seed=90)
    for kind in ("files", "bundle"):
        assert problems(later, exported / kind) == {"model_task1.onnx": [], "model_task2.onnx": []}


def test_damaged_cut_off_missing_and_swapped_files_are_named(net, folder):
    one, two = folder / "files" / "model_task1.onnx", folder / "files" / "model_task2.onnx"
    whole = one.read_bytes()
    one.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = problems(net, folder / "files")
    assert found["model_task2.onnx"] == []
    assert found["model_task1.onnx"] == [
        "'model_task1.onnx': its checksum is not the manifest's: it is damaged or another file"
    ]
    one.write_bytes(whole[:-9])
    [text] = problems(net, folder / "files")["model_task1.onnx"]
    size = len(whole)
    assert text == f"'model_task1.onnx': it has {size - 9:,} bytes, the manifest says {size:,}"
    one.write_bytes(two.read_bytes())
    two.unlink()
    found = problems(net, folder / "files")
    assert len(found["model_task1.onnx"]) == 1
    assert found["model_task2.onnx"] == ["'model_task2.onnx': it is missing"]


def test_damage_of_the_shared_file_concerns_every_task(net, folder):
    shared = shared_file(folder / "bundle")
    shared.unlink()
    missing = [f"'{shared.name}': it is missing"]
    assert problems(net, folder / "bundle") == {
        "model_task1.onnx": missing,
        "model_task2.onnx": missing,
    }


def rewritten(path, change, **says):
    """Changes a model and the manifest with it, as someone does who makes files by hand."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    onnx.save(model, path)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    from packnet_tf.export.manifest import describe_file

    for entry in manifest["tasks"]:
        if entry["file"] == path.name:
            entry.update({**describe_file(path), **says})
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def test_a_weight_that_should_be_zero_is_found(net, folder):
    def change(model):
        kernel = next(t for t in model.graph.initializer if t.name == "fc/kernel")
        values = numpy_helper.to_array(kernel).copy()
        row, column = np.argwhere(values == 0)[0]
        values[row, column] = 1e-9
        kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))

    rewritten(folder / "files" / "model_task1.onnx", change)
    assert problems(net, folder / "files")["model_task1.onnx"] == [
        "1 weights of 'fc/kernel' are not 0, though the task does not see them"
    ]


@pytest.mark.parametrize("kind", ["files", "half", "int8"])
def test_other_answers_are_found_whatever_the_manifest_allows(kind, net, folder):
    def change(model):
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype in (np.float32, np.float16) and values.size > 1:
                doubled = (2 * values).astype(values.dtype)
                tensor.CopyFrom(numpy_helper.from_array(doubled, tensor.name))

    path = folder / kind / "model_task2.onnx"
    entry = json.loads((path.parent / "manifest.json").read_text())["tasks"][1]
    says = {"options": {**entry["options"], "tolerance": 1e9}, "relative_difference": 1e9}
    rewritten(path, change, **says)
    [text] = problems(net, folder / kind)["model_task2.onnx"]
    assert text.startswith("its answers differ from Keras by ")
    # Whoever accepts that much says so.
    assert problems(net, folder / kind, tolerance=1e9)["model_task2.onnx"] == []


def test_the_classes_of_a_file_are_those_of_the_pack(net, folder):
    def change(model):
        props = {prop.key: prop.value for prop in model.metadata_props}
        onnx.helper.set_model_props(model, {**props, "classes": '["a", "b", "c"]'})

    rewritten(folder / "files" / "model_task1.onnx", change)
    assert problems(net, folder / "files")["model_task1.onnx"] == [
        "its classes: ['a', 'b', 'c']; the pack's are None"
    ]


def test_other_answers_are_found(net, folder):
    def change(model):
        kernel = next(t for t in model.graph.initializer if t.name == "fc/kernel")
        values = numpy_helper.to_array(kernel) * np.float32(1.5)
        kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))

    rewritten(folder / "files" / "model_task2.onnx", change)
    [text] = problems(net, folder / "files")["model_task2.onnx"]
    assert text.startswith("its answers differ from Keras by ")
    assert text.endswith(" of the largest, more than 1.0e-04")


def test_another_mask_in_a_bundle_is_found(net, folder):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.BOOL:  # by it the task sees all owners
                everything = np.ones(tuple(tensor.dims), bool)
                tensor.CopyFrom(numpy_helper.from_array(everything, tensor.name))

    rewritten(folder / "bundle" / "model_task1.onnx", change)
    *weights, last = problems(net, folder / "bundle")["model_task1.onnx"]
    assert weights == [
        f"the weight '{name}' that it reads and masks is not what the pack gives for this task"
        for name in ("conv1/kernel", "conv2/kernel", "fc/kernel")
    ]
    assert last.startswith("its answers differ from Keras by ")


def test_the_files_of_another_pack_are_found(folder):
    other = packed(conv_trunk(), one=0.4, three=0.5)
    found = problems(other, folder / "bundle")
    [first, *_] = found["model_task1.onnx"]
    assert re.fullmatch(r"the weight '\w+/kernel' that it reads and masks is not what .*", first)
    assert found["model_task2.onnx"] == ["the pack has no task 'two'; its tasks: 'one', 'three'"]


def test_a_pack_that_takes_other_inputs_is_told(tmp_path):
    wide = packed(mlp_trunk(), one=0.5)
    narrow = packed(functional(layers.Dense(8), shape=(3,)), one=0.5)
    export_all(wide, tmp_path)
    [verdict] = verify(narrow, tmp_path)
    assert verdict.problems[-1].startswith("it does not take what the pack does: ")


def test_classes_operator_set_and_names_must_be_those_of_the_manifest(net, folder):
    path = folder / "files" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tasks"][0]["classes"] = ["cat", "dog", "cow"]
    manifest["tasks"][1]["opset"] = 15
    manifest["tasks"][1]["outputs"][0]["name"] = "answers"
    path.write_text(json.dumps(manifest))
    found = problems(net, folder / "files")
    assert found["model_task1.onnx"] == [
        "the manifest's classes: ['cat', 'dog', 'cow']; the pack's are None"
    ]
    opset, outputs = sorted(found["model_task2.onnx"], key=lambda text: "outputs" in text)
    assert opset == "its opset: 17; expected 15"
    assert outputs.startswith("its outputs: [{'name': 'logits'")


def test_a_folder_without_a_manifest_is_refused(net, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json\. Name a folder"):
        verify(net, tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "tasks": []}')
    with pytest.raises(ValueError, match=r"is not a manifest of exported tasks \(format 1, exp"):
        verify(net, tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 3, "tasks": []}')
    with pytest.raises(ValueError, match=r"is not a manifest of exported tasks \(it lacks 'kind'"):
        verify(net, tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 3, "kind": "files", "tasks": []}')
    with pytest.raises(ValueError, match="lists no task"):
        verify(net, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("file", [], "'file' is a list"),
        ("file", "..", "'..' is not the name of a file beside it"),
        ("file", "x" * 256, f"'{'x' * 256}' is not the name of a file beside it"),
        ("bytes", "8", "'bytes' is a str"),
        ("number", True, "'number' is a bool"),
        ("external", [3], "int where a dict is expected"),
        ("relative_difference", float("nan"), "relative_difference nan"),
        ("precision", {}, "'precision' is a dict"),
        ("router", {"tasks": {"cat": "1"}}, "'cat' is a str"),
        ("router", {"external": [3]}, "int where a dict is expected"),
        ("router", {"file": "../r.onnx"}, "'../r.onnx' is not the name of a file beside it"),
        ("shared", {"tensors": {"a": "8"}}, "'a' is a str"),
        ("shared", {"precision": 3}, "'precision' is a int"),
        ("shared", {"calibrated": 1}, "'calibrated' is a int"),
        *(
            (
                "shared",
                {"tasks": bad},
                f"tasks {bad} of a shared file, expected the first and last number",
            )
            for bad in ([1], [0, 2], [2, 1], [1, True], ["1", "2"])
        ),
        ("shared", {"tensors": {"a": -1}}, "tensors that begin outside of 'shared.bin'"),
        ("shared", {"tensors": {"a": 9}}, "tensors that begin outside of 'shared.bin'"),
    ],
)
def test_a_manifest_with_a_value_that_it_cannot_have_is_refused(tmp_path, key, value, text):
    entry = {**blank(TASK), "file": "model.onnx"}
    manifest = {"format": 3, "kind": "files", "tasks": [entry]}
    if key == "router":
        manifest["router"] = {**blank(ROUTER), "file": "router.onnx", **value}
    elif key == "shared":
        entry = {**blank(SHARED), "file": "shared.bin", "tasks": [1, 2], "bytes": 8, **value}
        manifest["shared"] = [entry]
    else:
        entry[key] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError) as refused:
        read(tmp_path)
    assert str(refused.value) == (
        f"'{tmp_path / 'manifest.json'}' is not a manifest of exported tasks ({text}). Remove it, "
        "and export again."
    )


def test_a_bundle_s_manifest_lists_shared_weights_of_tasks_that_the_pack_has(net, folder):
    path = folder / "bundle" / "manifest.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "shared": []}))
    with pytest.raises(
        ValueError, match=r"manifest\.json' is not .*a bundle without shared weights"
    ):
        verify(net, path.parent)
    whole["shared"][0]["tasks"][1] = 9
    path.write_text(json.dumps(whole))
    text = r"manifest\.json' describes weights of 9 tasks, but the pack has \d\. Export it anew"
    with pytest.raises(ValueError, match=text):
        verify(net, path.parent)


def test_options_in_a_manifest_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"options of 'a.onnx' are damaged: .*no option 'opsets'"):
        recorded_options({"file": "a.onnx", "options": {"opsets": 17}})
    with pytest.raises(ValueError, match=r"options of 'a.onnx' are damaged: "):
        recorded_options({"file": "a.onnx", "options": {"opset": []}})


def test_tasks_that_answer_nan_are_a_problem_not_a_crash(net, folder):
    def change(model):
        kernel = next(t for t in model.graph.initializer if t.name == "fc/kernel")
        values = numpy_helper.to_array(kernel).copy()
        values[values != 0] = np.nan
        kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))

    rewritten(folder / "files" / "model_task1.onnx", change)
    [text] = problems(net, folder / "files")["model_task1.onnx"]
    assert text.startswith("The model answers NaN or infinite numbers in ONNX Runtime")
