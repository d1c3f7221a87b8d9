"""`TaskRouter`: the task of an image, or none; in memory, in a file and as ONNX."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.export_helpers import files
from helpers.pack_helpers import conv_trunk, mlp_trunk, pack_task, packed
from packnet_tf.export import export_all, export_router, verify
from packnet_tf.export.manifest import read
from packnet_tf.routing.files import write

TASKS = ("one", "two", "three")


def images_of(place, count=40, seed=0):
    """Images of one task: bright or dark, flat or contrasted, unlike those of the others."""
    rng = np.random.default_rng((seed, place))
    pixels = rng.normal(size=(count, 6, 6, 1)) * (0.3, 3.0, 1.0, 0.5)[place]
    pixels[:, ::2] += (0, 0, 6, 0)[place]
    pixels[:, :, ::2] -= (5, 0, 0, 0)[place]
    pixels[:, :3] += (0, 0, 0, 9)[place]
    return pixels.astype("float32")


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(1)  # a random network this small may be blind to a difference
    return packed(conv_trunk(), one=0.5, two=0.5, three=0.5)


@pytest.fixture(scope="module")
def router(net):
    return packnet_tf.TaskRouter.fit(net, {name: images_of(i) for i, name in enumerate(TASKS)})


@pytest.fixture(scope="module")
def mixed():
    return np.concatenate([images_of(place, 20, seed=1) for place in range(4)])


def test_it_names_the_task_of_new_images_and_none_for_a_task_that_it_does_not_know(router, mixed):
    names, scores = router.predict(mixed), router.scores(mixed)
    for place, name in enumerate(TASKS):
        assert (scores[20 * place : 20 * place + 20].argmax(axis=1) == place).mean() > 0.9
        assert names[20 * place : 20 * place + 20].count(name) >= 12
    assert names[60:].count(None) >= 15
    assert [name is None for name in names] == (scores.max(axis=1) < 0).tolist()


def test_a_saved_router_gives_the_same_bits(router, net, mixed, tmp_path):
    router.save(tmp_path / "a.npz")
    router.save(tmp_path / "b.npz")
    read_back = packnet_tf.TaskRouter.load(tmp_path / "a.npz", net)
    assert files(tmp_path)["a.npz"] == files(tmp_path)["b.npz"]
    assert read_back.tasks == TASKS
    assert np.array_equal(read_back.scores(mixed), router.scores(mixed))
    assert str(read_back) == str(router)


def test_tasks_are_added_and_removed_without_the_images_of_others(router, net, mixed):
    later = packnet_tf.TaskRouter.fit(net, {"two": images_of(3), "one": images_of(0)})
    later.add("three", images_of(2))
    later.remove("two")
    later.add("two", images_of(1))
    assert later.tasks == ("one", "three", "two")
    assert np.array_equal(later.scores(mixed)[:, [0, 2, 1]], router.scores(mixed))


def test_every_fifth_image_is_held_out_where_no_others_are_given(net, mixed):
    x = images_of(0)
    held = np.arange(len(x)) % 5 == 0

    def one_by_one(images):  # batches of other sizes may round differently
        return {"one": tf.data.Dataset.from_tensor_slices(images).batch(1)}

    given = packnet_tf.TaskRouter.fit(net, one_by_one(x[~held]), validation=one_by_one(x[held]))
    alone = packnet_tf.TaskRouter.fit(net, one_by_one(x))
    assert np.array_equal(given.scores(mixed), alone.scores(mixed))


def test_storage_counts_the_numbers_of_each_task(router):
    # 14 means, 14 x 6 directions and 6 variances, and four numbers.
    assert router.storage() == dict.fromkeys(TASKS, 2 * 14 + 2 * 14 * 6 + 4 * 6 + 16)
    assert "all" in str(router)


def test_a_released_task_leaves_the_router_and_its_name_may_come_back(router, tmp_path):
    net = packed(conv_trunk(), one=0.5)
    pack_task(net, "two", overlay=0.5)
    kept = packnet_tf.TaskRouter.fit(net, {"one": images_of(0), "two": images_of(1)})
    kept.save(tmp_path / "router.npz")
    for again in (False, True):
        if again:
            pack_task(net, "two", overlay=0.5)
            net.note_metadata("two", committed="2999-01-01T00:00:00+00:00")
        else:
            net.release("two")
        assert packnet_tf.TaskRouter.load(tmp_path / "router.npz", net).tasks == ("one",)
        assert kept.tasks == tuple(kept.storage()) == ("one",)
        assert kept.scores(images_of(1)).shape == (40, 1)
        export_router(kept, tmp_path / "router.onnx", verbose=False)
        proto = onnx.load(tmp_path / "router.onnx")
        assert proto.metadata_props[-1].value == '{"one": 1}'
        with pytest.raises(ValueError, match="knows no task 'two'; it knows 'one'"):
            kept.remove("two")
    kept.add("two", images_of(1))
    assert kept.tasks == ("one", "two")
    with pytest.raises(ValueError, match="another pack"):
        packnet_tf.TaskRouter.load(tmp_path / "router.npz", packed(mlp_trunk(), one=0.5))


def test_a_damaged_file_is_refused_by_name(router, net, tmp_path):
    path = tmp_path / "router.npz"
    with pytest.raises(FileNotFoundError, match=r"router\.npz"):
        packnet_tf.TaskRouter.load(path, net)
    router.save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:900] + b"!" + whole[901:], b"PK nothing"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"router\.npz"):
            packnet_tf.TaskRouter.load(path, net)
    for facts in ({}, {"commits": {"one": "2026"}}, {"commits": []}):
        write(path, facts, dict(zip(router.tasks, router.gaussians, strict=True)))
        with pytest.raises(ValueError, match=r"router\.npz' is not a router, or is damaged"):
            packnet_tf.TaskRouter.load(path, net)
    np.savez_compressed(path, router=np.zeros(2**25, np.uint8))
    with pytest.raises(ValueError, match=r"router\.npz.* more than a file of this size may hold"):
        packnet_tf.TaskRouter.load(path, net)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"four": images_of(0)}, "four"),
        ({"one": images_of(0)[:1]}, "at least 6 images"),
        ({"one": np.zeros((9, 5, 5, 1), "float32")}, r"\(9, 5, 5, 1\).*\('batch', 6, 6, 1\)"),
        ({"one": np.full((9, 6, 6, 1), np.nan, "float32")}, "NaN"),
        (images_of(0), "dict by task"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(given, said, net):
    with pytest.raises(ValueError, match=said):
        packnet_tf.TaskRouter.fit(net, given)


def test_a_router_that_knows_nothing_says_what_to_call(net, tmp_path):
    with pytest.raises(RuntimeError, match=r"router\.add"):
        packnet_tf.TaskRouter(net).predict(images_of(0))
    with pytest.raises(ValueError, match=r"router\.add"):
        export_router(packnet_tf.TaskRouter(net), tmp_path / "router.onnx")
    with pytest.raises(ValueError, match="adopt"):
        packnet_tf.TaskRouter(packnet_tf.PackNet(mlp_trunk()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [13, 18])
def test_the_exported_router_names_tasks_by_their_numbers(opset, router, mixed, tmp_path):
    path = tmp_path / "router.onnx"
    difference = export_router(router, path, samples=mixed, opset=opset, verbose=False)
    assert difference < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    task, scores = session.run(["task", "scores"], {"image": mixed})
    assert (task.dtype, scores.dtype) == (np.int64, np.float32)
    expected = router.scores(mixed)
    assert np.abs(scores - expected).max() <= 1e-4 * np.abs(expected).max()
    assert [{-1: None, 1: "one", 2: "two", 3: "three"}[n] for n in task] == router.named(scores)
    again = tmp_path / "again.onnx"
    export_router(router, again, samples=mixed, opset=opset, verbose=False)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["router_first", "router_vectors"])
def test_the_input_of_a_router_may_have_any_name_that_no_output_has(name, router, mixed, tmp_path):
    path = tmp_path / "router.onnx"
    export_router(router, path, verbose=False, input_names=[name])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(["task"], {name: mixed})[0].shape == (len(mixed),)
    with pytest.raises(ValueError) as error:
        export_router(router, path, verbose=False, input_names=["scores"])
    assert str(error.value) == (
        "Cannot export the router: an input and an output of its file are both called 'scores'. "
        "Give the inputs other names: input_names=['image']."
    )


def test_a_router_that_differs_is_not_written(router, tmp_path):
    with pytest.raises(ValueError, match="No file was written"):
        export_router(router, tmp_path / "router.onnx", tolerance=0.0, samples=images_of(1))
    with pytest.raises(TypeError, match="float32"):
        export_router(router, tmp_path / "router.onnx", precision="int8")
    assert not list(tmp_path.iterdir())


def test_the_manifest_lists_the_router_and_verify_checks_it(router, net, tmp_path):
    path = tmp_path / "router.onnx"
    export_all(net, tmp_path, tasks=["two"], verbose=False)
    export_router(router, path, verbose=False)
    assert read(tmp_path)["router"]["tasks"] == {"one": 1, "two": 2, "three": 3}
    assert [verdict.problems for verdict in verify(net, tmp_path)] == [[], []]
    model = onnx.load(path)
    model.doc_string = "changed"
    onnx.save(model, path)
    [*_, verdict] = verify(net, tmp_path)
    assert "router.onnx" in verdict.problems[0]
    with pytest.raises(ValueError, match="another pack"):
        export_router(
            packnet_tf.TaskRouter.fit(packed(conv_trunk(), four=0.5), {"four": images_of(0)}), path
        )


def test_a_router_and_a_task_do_not_share_a_file(router, net, tmp_path):
    export_all(net, tmp_path, tasks=["one", "two"], verbose=False)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"model_task1\.onnx' is a file of the exported tasks"):
        export_router(router, tmp_path / "model_task1.onnx", verbose=False)
    assert files(tmp_path) == before
    export_router(router, tmp_path / "three.onnx", verbose=False)
    export_all(net, tmp_path, tasks=["three"], names="task", verbose=False)
    assert "router" not in read(tmp_path)
    assert [verdict.problems for verdict in verify(net, tmp_path)] == [[], [], []]


def test_an_export_of_some_tasks_goes_with_no_files_of_released_ones(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    for name in ("two", "three"):
        pack_task(net, name, overlay=0.5)
    export_all(net, tmp_path, verbose=False)
    known = {name: images_of(place) for place, name in enumerate(TASKS)}
    export_router(packnet_tf.TaskRouter.fit(net, known), tmp_path / "router.onnx", verbose=False)
    net.release("three")
    keras.utils.set_random_seed(2)
    pack_task(net, "three", overlay=0.5)
    with pytest.raises(ValueError, match="holds the task 'three' of another pack, or of another"):
        export_all(net, tmp_path, tasks=["two"], verbose=False)
    with pytest.raises(ValueError, match="holds the task 'three' of another pack, or of another"):
        export_router(packnet_tf.TaskRouter.fit(net, known), tmp_path / "r.onnx", verbose=False)
    export_all(net, tmp_path, tasks=["three"], verbose=False)  # its router knew the former one
    assert "router" not in read(tmp_path)
    assert not (tmp_path / "router.onnx").exists()
    assert [verdict.problems for verdict in verify(net, tmp_path)] == [[], [], []]


@pytest.mark.slow
def test_an_export_of_some_tasks_keeps_the_router_and_one_of_all_removes_it(router, net, tmp_path):
    path = tmp_path / "router.onnx"
    export_all(net, tmp_path, verbose=False)
    export_router(router, path, verbose=False)
    export_all(net, tmp_path, tasks=["two"], verbose=False)
    assert "router" in read(tmp_path)
    assert path.exists()
    export_all(net, tmp_path, verbose=False)  # another state of the pack may have other numbers
    assert not path.exists()
    assert "router" not in read(tmp_path)


def test_the_router_of_a_trunk_that_augments_its_images_is_exported(tmp_path):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.RandomRotation(0.5)(layers.RandomFlip()(inputs))
    trunk = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))
    images = np.random.default_rng(0).uniform(size=(40, 8, 8, 3)).astype("float32")
    fitted = packnet_tf.TaskRouter.fit(packed(trunk, one=0.5), {"one": images})
    export_router(fitted, tmp_path / "router.onnx", verbose=False, samples=images)
