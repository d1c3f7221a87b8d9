"""One file for several tasks: what they share is computed once, the rest only where asked for."""

import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx.reference import ReferenceEvaluator

import packnet_tf
from helpers.cases import slow
from helpers.export_helpers import images, net_of
from helpers.int8_sessions import session_of
from helpers.pack_helpers import conv_trunk, mlp_trunk, pack_task
from packnet_tf.apps.device.sessions import sessions_of
from packnet_tf.export import export_all, export_multitask
from packnet_tf.export.multitask.merge import merge
from packnet_tf.export.runtime.task_session import TaskSession, tasks_in

TASKS = ["birds", "cars", "a_birds"]


@pytest.fixture(scope="module")
def net():
    """A pack of three tasks with a stem; the name of one ends like that of another.

    The last has an overlay.
    """
    return pack(conv_trunk(), stem="relu1")


def pack(trunk, **policy):
    made = packnet_tf.PackNet(trunk, **policy)
    for number, name in enumerate(TASKS):
        classes = [f"{name} {place}" for place in range(3 + number)]
        overlay = 0.3 if number == len(TASKS) - 1 else None
        pack_task(made, name, classes=len(classes), seed=number, overlay=overlay)
        made.state = made.state.with_committed(name, classes=classes)
    return made


def plainly(path):
    """A session that changes nothing of the graph, so that equal graphs compute equal bits."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def branches(path):
    """The operators that run for all tasks, and those of each task's branch."""
    graph = onnx.load(path).graph
    inner = [
        [node.op_type for node in attribute.g.node]
        for node in graph.node
        for attribute in node.attribute
        if attribute.name == "then_branch"
    ]
    return [node.op_type for node in graph.node], inner


CASES = {
    "float32": {},
    "int8": {"precision": "int8"},
    "pixels": {"preprocessing": "uint8", "pixel_range": (0, 1), "outputs": "top_k", "top_k": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_every_task_answers_bit_for_bit_as_its_own_file(case, net, tmp_path):
    export_all(net, tmp_path / "alone", names="task", **CASES[case])
    exported = export_multitask(net, tmp_path / "all.onnx", **CASES[case])
    assert [task["task"] for task in exported["tasks"]] == TASKS
    feeds = {"image": images(net)}
    if case == "pixels":
        feeds["image"] = (255 * np.random.default_rng(0).random((2, 9, 7, 1))).astype(np.uint8)
    whole = plainly(tmp_path / "all.onnx")
    names = [output.name for output in whole.get_outputs()]
    every = dict(zip(names, whole.run(None, feeds), strict=True))
    for task in TASKS:
        own, mine = plainly(tmp_path / "alone" / f"{task}.onnx"), TaskSession(whole, task)
        names = [output.name for output in own.get_outputs()]
        assert [output.name for output in mine.get_outputs()] == names
        found = dict(zip(names, mine.run(None, feeds), strict=True))
        for name, expected in zip(names, own.run(None, feeds), strict=True):
            assert np.array_equal(expected, found[name])
            assert np.array_equal(expected, every[f"{name}_{task}"])
            assert np.array_equal(expected, *mine.run([name], feeds))


def test_float16_files_compute_the_same_graphs(net, tmp_path):
    # onnxruntime computes float16 in float32 on a CPU, and rounds where it likes.
    export_all(net, tmp_path, names="task", precision="float16")
    export_multitask(net, tmp_path / "all.onnx", precision="float16")
    feeds, asked = {"image": images(net)}, {"tasks": np.ones(3, bool)}
    whole = ReferenceEvaluator(str(tmp_path / "all.onnx")).run(None, feeds | asked)
    for task, found in zip(TASKS, whole, strict=True):
        [alone] = ReferenceEvaluator(str(tmp_path / f"{task}.onnx")).run(None, feeds)
        assert np.array_equal(alone, found)


def test_what_all_tasks_share_runs_once(net, tmp_path):
    export_multitask(net, tmp_path / "all.onnx", preprocessing="uint8", pixel_range=(0, 1))
    outside, inside = branches(tmp_path / "all.onnx")
    assert outside.count("Resize") == outside.count("Conv") == 1
    assert outside.count("If") == len(TASKS)
    assert all(found.count("Conv") == 1 and "Resize" not in found for found in inside)


def test_tasks_without_a_stem_share_no_more_than_is_equal(tmp_path):
    net = pack(conv_trunk())
    export_multitask(net, tmp_path / "all.onnx")
    outside, inside = branches(tmp_path / "all.onnx")
    assert "Conv" not in outside
    assert [found.count("Conv") for found in inside] == [2, 2, 2]


def test_only_the_tasks_that_are_asked_for_answer(net, tmp_path):
    export_multitask(net, tmp_path / "all.onnx", ["cars", "birds"])
    session = onnxruntime.InferenceSession(tmp_path / "all.onnx")
    feeds = {"image": images(net)}
    assert [o.name for o in session.get_outputs()] == ["logits_cars", "logits_birds"]
    both = session.run(None, feeds)
    assert [array.shape for array in both] == [(5, 4), (5, 3)]
    one = session.run(None, {**feeds, "tasks": np.array([False, True])})
    assert [array.shape for array in one] == [(0, 4), (5, 3)]
    assert np.array_equal(one[1], both[1])
    assert tasks_in(session) == ["cars", "birds"]


def test_the_file_describes_its_tasks(net, tmp_path):
    net.notes["pixel_range"] = "0,1"
    export_multitask(net, tmp_path / "all.onnx", outputs="top_k", metadata={"by": "me"})
    session = onnxruntime.InferenceSession(tmp_path / "all.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["by"], facts["pixel_range"]) == ("me", "0,1")
    assert json.loads(facts["tasks"])["cars"] == {
        "classes": net.classes("cars"),
        "outputs": ["top_classes_cars", "top_probabilities_cars"],
    }
    mine = TaskSession(session, "cars").get_modelmeta().custom_metadata_map
    assert json.loads(mine["classes"]) == net.classes("cars")
    assert (mine["task"], mine["by"], "tasks" in mine) == ("cars", "me", False)
    with pytest.raises(ValueError, match="no task 'dogs'; it has 'birds', 'cars', 'a_birds'"):
        TaskSession(session, "dogs")
    with pytest.raises(ValueError, match="'cars' has no output 'logits'; it has top_classes, top"):
        TaskSession(session, "cars").run(["logits"], {"image": images(net)})


@pytest.mark.parametrize(
    "damaged",
    [{"outputs": ["locits_cars"]}, {"outputs": "logits_cars"}, {"outputs": [[]]}, {"classes": [1]}],
    ids=str,
)
def test_damaged_metadata_name_the_task_and_the_file(net, damaged, tmp_path):
    path = tmp_path / "all.onnx"
    export_multitask(net, path, tasks=["birds", "cars"], verbose=False)
    model = onnx.load(path)
    [facts] = [entry for entry in model.metadata_props if entry.key == "tasks"]
    content = json.loads(facts.value)
    content["cars"] |= damaged
    facts.value = json.dumps(content)
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"all\.onnx': The metadata of task 'cars' are damaged"):
        sessions_of(str(path))


def test_a_file_of_one_task_is_not_one_of_several(net, tmp_path):
    export_all(net, tmp_path)
    path = tmp_path / "model_task1.onnx"
    session = onnxruntime.InferenceSession(path)
    assert tasks_in(session) == []
    with pytest.raises(ValueError, match=r"This is the file of one task, 'birds'. Run its session"):
        TaskSession(session, "birds")
    model = onnx.load(path)
    for text in ("two of them", "[1, 2]", '{"birds": 3}', '{"birds": {}}'):
        onnx.helper.set_model_props(model, {"tasks": text})
        foreign = onnxruntime.InferenceSession(model.SerializeToString())
        assert tasks_in(foreign) == []
    with pytest.raises(ValueError, match="This is no file of this package"):
        TaskSession(foreign, "birds")


def test_what_is_returned_describes_the_file(net, tmp_path):
    evaluate = {"cars": (images(net), np.zeros(5, int))}
    exported = export_multitask(net, tmp_path / "all.onnx", evaluate=evaluate)
    session = onnxruntime.InferenceSession(tmp_path / "all.onnx")
    for task in exported["tasks"]:
        assert [entry["name"] for entry in task["inputs"]] == ["image", "tasks"]
        assert task["inputs"][1] == {"name": "tasks", "shape": [3], "dtype": "bool"}
        assert [entry["name"] for entry in task["outputs"]] == [f"logits_{task['task']}"]
        assert task["bytes"] == (tmp_path / "all.onnx").stat().st_size
    [found] = TaskSession(session, "cars").run(None, {"image": images(net)})
    assert exported["tasks"][1]["evaluated"]["accuracy"] == np.mean(found.argmax(1) == 0)
    assert [path.name for path in tmp_path.iterdir()] == ["all.onnx"]


def test_int8_is_calibrated_on_the_inputs_of_all_tasks(net, tmp_path):
    x = images(net, 40)
    calibration = {"birds": x[:20], "cars": x[20:], "a_birds": None}
    export_multitask(net, tmp_path / "all.onnx", precision="int8", calibration=calibration)
    outside, inside = branches(tmp_path / "all.onnx")
    assert outside.count("Conv") == 1
    assert outside.count("QuantizeLinear") > 0
    assert [found.count("Conv") for found in inside] == [1, 1, 1]
    [task, *_] = export_all(net, tmp_path, precision="int8", calibration=x)["tasks"]
    alone = session_of(tmp_path / task["file"]).run(None, {"image": x})
    whole = session_of(tmp_path / "all.onnx").run(["logits_birds"], {"image": x})
    assert np.allclose(alone, whole, atol=1e-5)


class Batches:
    """Batches that know how often they were read."""

    def __init__(self, array):
        self.array, self.reads = array, 0

    def __iter__(self):
        self.reads += 1
        return iter([self.array])


def test_inputs_for_all_tasks_are_calibrated_on_once(net, tmp_path):
    batches = Batches(images(net, 20))
    export_multitask(net, tmp_path / "all.onnx", precision="int8", calibration=batches)
    assert batches.reads == 1


def test_calibration_that_does_not_fit_is_refused(net, tmp_path):
    none = dict.fromkeys(TASKS) | {"birds": []}
    with pytest.raises(ValueError, match="calibration is empty"):
        export_multitask(net, tmp_path / "all.onnx", precision="int8", calibration=none)
    batches = Batches(images(net))
    with pytest.raises(ValueError, match="calibration is for 'int8', not for 'float32'"):
        export_multitask(net, tmp_path / "all.onnx", calibration=batches)
    assert batches.reads == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["birds/number", "0/Conv_0", "/0/asked", "//"])
def test_inputs_may_have_any_name_that_no_output_has(name, net, tmp_path):
    export_multitask(net, tmp_path / "all.onnx")
    export_multitask(net, tmp_path / "named.onnx", input_names=[name])
    expected = plainly(tmp_path / "all.onnx").run(None, {"image": images(net)})
    found = plainly(tmp_path / "named.onnx").run(None, {name: images(net)})
    assert all(map(np.array_equal, expected, found))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tasks", "An input of the trunk is called 'tasks', and so is the input that says which"),
        ("logits_cars", "An input and an output of task 'cars' are both called 'logits_cars'."),
    ],
)
def test_an_input_with_a_name_of_the_file_is_refused(name, text, net, tmp_path):
    with pytest.raises(ValueError, match=text) as caught:
        export_multitask(net, tmp_path / "all.onnx", input_names=[name])
    assert "input_names=['image']" in str(caught.value)


def test_outputs_of_the_same_name_are_refused():
    def model(*outputs):
        entries = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 2])
            for name in ("image", *outputs)
        ]
        nodes = [onnx.helper.make_node("Relu", ["image"], [name]) for name in outputs]
        graph = onnx.helper.make_graph(nodes, "graph", entries[:1], entries[1:])
        return onnx.helper.make_model(graph)

    models = {"b": model("logits_0", "logits_1"), "0_b": model("logits")}
    with pytest.raises(ValueError, match=r"'b' and '0_b' both have an output 'logits_0_b'. Leave"):
        merge(models)


@pytest.mark.parametrize("kind", ["recurrent", *slow("loop", "attention", "two_inputs")])
def test_other_networks_go_into_one_file(kind, tmp_path):
    net = net_of(kind)
    exported = export_multitask(net, tmp_path / "all.onnx")
    assert all(task["relative_difference"] < 1e-5 for task in exported["tasks"])


def test_a_single_task_is_a_branch_too(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    pack_task(net, "one")
    export_multitask(net, tmp_path / "one.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "one.onnx")
    x = np.ones((2, 12), np.float32)
    [none] = session.run(None, {"image": x, "tasks": np.array([False])})
    assert none.shape == (0, 3)


def test_equal_tasks_differ_in_nothing_but_their_names(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    head = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    net.adopt("one", 0.0, head=head)
    other = packnet_tf.PackNet(trunk)
    other.adopt("two", 0.0, head=head)
    assert export_multitask(net, tmp_path / "one.onnx")
    graphs = {}
    for which, name in ((net, "one"), (other, "two")):
        export_all(which, tmp_path / name, names="task")
        graphs[name] = onnx.load(tmp_path / name / f"{name}.onnx")
    onnx.save(merge(graphs), tmp_path / "both.onnx")
    outside, inside = branches(tmp_path / "both.onnx")
    assert outside.count("MatMul") + outside.count("Gemm") == 3
    assert inside == [["Identity"], ["Identity"]]
    x = np.ones((2, 12), np.float32)
    first, second = onnxruntime.InferenceSession(tmp_path / "both.onnx").run(None, {"image": x})
    assert np.array_equal(first, second)


def test_a_file_that_differs_from_keras_is_not_written(net, tmp_path):
    with pytest.raises(ValueError, match=r"differs from Keras by .* No file was written"):
        export_multitask(net, tmp_path / "all.onnx", tolerance=0.0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="expected a name that ends in"):
        export_multitask(net, tmp_path / "all")
