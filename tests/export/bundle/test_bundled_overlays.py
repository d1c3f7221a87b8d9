"""Bundles hold the overlays of tasks: their places and their values."""

import shutil

import numpy as np
import onnxruntime
import pytest

from helpers.cases import slow
from helpers.export_helpers import answer, images
from helpers.pack_helpers import conv_trunk, pack_task, packed
from packnet_tf.export import export_all, export_bundle, verify
from packnet_tf.export.bundle import owner_codes
from packnet_tf.export.graph.builder import GraphBuilder
from packnet_tf.packing.bits import GAPS, pack_places


@pytest.fixture
def net():
    """A full pack: an owner, an overlay, an owner, and two overlays of few and many weights."""
    net = packed(conv_trunk(), one=0.5)
    pack_task(net, "two", seed=3, overlay=0.05)
    pack_task(net, "three", 0.0, seed=5)
    pack_task(net, "four", seed=7, overlay=0.05)
    pack_task(net, "five", seed=9, overlay=0.5, reuse=["three"])
    return net


def check(net, folder, tmp_path):
    """A bundle is verified, and its graphs answer as files with baked weights."""
    assert [verdict.problems for verdict in verify(net, folder)] == [[]] * len(net.tasks)
    export_all(net, tmp_path / "baked", verbose=False)
    x = images(net)
    for number in range(1, len(net.tasks) + 1):
        name = f"model_task{number}.onnx"
        assert np.array_equal(answer(folder / name, x), answer(tmp_path / "baked" / name, x)), name


def test_a_bundle_of_owners_and_overlays_answers_as_single_files(net, tmp_path):
    manifest = export_bundle(net, tmp_path / "bundle", verbose=False)
    assert len(manifest["shared"]) == 1
    check(net, tmp_path / "bundle", tmp_path)


@pytest.mark.parametrize("precision", [*slow("float16"), "int8"])
def test_overlays_are_stored_in_the_precision_of_the_bundle(net, precision, tmp_path):
    export_bundle(net, tmp_path / "bundle", precision=precision, verbose=False)
    verdicts = verify(net, tmp_path / "bundle")
    assert [verdict.problems for verdict in verdicts] == [[]] * len(net.tasks)


def test_updates_bring_overlays_and_owners_in_files_of_their_own(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    pack_task(net, "two", seed=3, overlay=0.05)
    folder = tmp_path / "bundle"
    export_bundle(net, folder, verbose=False)
    pack_task(net, "three", 0.0, seed=5)
    pack_task(net, "four", seed=7, overlay=0.05)
    export_bundle(net, folder, update_from=folder, verbose=False)
    pack_task(net, "five", seed=9, overlay=0.5, reuse=["three"])
    before = shutil.copytree(folder, tmp_path / "before")
    manifest = export_bundle(net, folder, update_from=folder, verbose=False)
    changed = sorted(name.partition("-")[0] for name in manifest["changed"])
    assert changed == ["manifest.json", "model_task5.onnx", "shared_task5"]
    for path in before.iterdir():
        if path.name != "manifest.json":
            assert (folder / path.name).read_bytes() == path.read_bytes()
    check(net, folder, tmp_path)
    assert export_bundle(net, folder, update_from=folder, verbose=False)["changed"] == [
        "manifest.json"
    ]


def test_an_overlay_adds_its_places_and_values_to_a_bundle(tmp_path):
    sizes = {}
    for name, overlay in {"few": 0.05, "many": 0.5}.items():
        net = packed(conv_trunk(), one=0.0)
        folder = tmp_path / name
        export_bundle(net, folder, verbose=False)
        pack_task(net, name, overlay=overlay)
        manifest = export_bundle(net, folder, update_from=folder, verbose=False)
        entry = next(file for file in manifest["shared"] if "_task2-" in file["file"])
        sizes[name] = (entry["bytes"], round(220 * overlay), 64 * len(entry["tensors"]))
    for size, places, alignment in sizes.values():
        assert 4 * places < size <= 4 * places + 220 / 8 + 4 * 3 + 3 + alignment


def test_a_changed_overlay_is_noticed(net, tmp_path):
    export_bundle(net, tmp_path / "bundle", verbose=False)
    net.release("five")
    pack_task(net, "five", seed=10, overlay=0.5, reuse=["three"])
    problems = [verdict.problems for verdict in verify(net, tmp_path / "bundle")]
    assert problems[:4] == [[]] * 4
    assert "is not what the pack gives for this task" in problems[4][0]
    with pytest.raises(ValueError, match="does not hold what the pack's earlier tasks own"):
        export_bundle(net, tmp_path / "new", update_from=tmp_path / "bundle", verbose=False)


@pytest.mark.parametrize("shapes", [[(20, 30)], [(200, 8), (7,), (10, 3, 3)]])
def test_masks_of_gaps_are_those_that_were_packed(shapes):
    from onnx import TensorProto, helper

    size = sum(int(np.prod(shape)) for shape in shapes)
    graph = helper.make_graph([], "g", [], [])
    builder = GraphBuilder(graph)
    for places in ([0], [size - 1], [3, 4, 258, 259, size - 2], [300, 555, 566]):
        flat = np.isin(np.arange(size), places)
        packed_ = pack_places(flat)
        assert packed_[0] == GAPS
        gaps = packed_[1:]
        names = owner_codes.masks_of_gaps(builder, builder.constant(gaps), gaps.size, shapes)
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.BOOL, None) for name in names
        )
        builder.close()
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        found = onnxruntime.InferenceSession(model.SerializeToString()).run(names, {})
        assert [mask.shape for mask in found] == list(shapes)
        assert np.array_equal(np.concatenate([mask.reshape(-1) for mask in found]), flat)


def test_an_empty_overlay_leaves_the_earlier_weights(tmp_path):
    net = packed(conv_trunk(), one=0.0)
    pack_task(net, "two", 1.0, overlay=0.05)
    assert net.capacity().sum()["overlaid"] == {"two": 0}
    export_bundle(net, tmp_path / "bundle", verbose=False)
    check(net, tmp_path / "bundle", tmp_path)
