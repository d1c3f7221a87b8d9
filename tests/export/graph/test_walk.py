"""Names within graphs."""

from onnx import TensorProto, helper

from packnet_tf.export.graph.walk import free_names


def test_a_free_name_is_the_wanted_one_unless_the_graph_has_it():
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab")
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "lacking"], ["b"])], "g", [given], [made]
    )
    free = free_names(graph)
    assert [free(name) for name in ("c", "a", "b", "lacking", "c")] == [
        "c",
        "a_",
        "b_",
        "lacking_",
        "c",
    ]
    assert free("a_") == "a__"  # different names stay different
