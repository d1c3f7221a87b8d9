"""What prints as a table, notebooks show as one, with every name escaped."""

import re

import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import mlp_trunk, packed
from packnet_tf.adoption.adopt import Adoption
from packnet_tf.export.exported import Exported
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.history import History
from packnet_tf.reporting.tables import html_table, text_table

ODD = "<b>&'\""
ESCAPED = "&lt;b&gt;&amp;&#x27;&quot;"
FILE = {"task": ODD, "bytes": 1500, "precision": "float32", "relative_difference": 1e-6}
SHOWN = {
    "capacity": Capacity({ODD: {"total": 4, "free": 4, "claimed": 0, "owned": {}}}, ()),
    "history": History(
        {
            ODD: {
                "prune_ratio": 0.5, "before_prune": {"accuracy": 0.75}, "after_prune": {},
                "retrained": {"loss": 0.25}, "test": {}, "capacity": 0.5, "seconds": 9.0,
            }
        }
    ),
    "export": Exported(
        {
            "tasks": [{**FILE, "file": "a.onnx"}],
            "shared": [{"file": "shared.data", "bytes": 2000}],
            "changed": ["a.onnx"],
        }
    ),
    "adoption": Adoption(ODD, 0.5, 0, None, None),
}  # fmt: skip


def cells(html):
    return re.findall(r"<t[hd] [^>]*>([^<]*)</t[hd]>", html)


def test_a_table_as_html_is_worked_out_by_hand():
    assert html_table(["a", "b"], [["<", "1"], ["all", "2"]], 1, ["&."]) == "\n".join(
        [
            "<table>",
            '<tr><th style="text-align: left; font-weight: bold">a</th>'
            '<th style="text-align: right; font-weight: bold">b</th></tr>',
            '<tr><td style="text-align: left; font-weight: normal">&lt;</td>'
            '<td style="text-align: right; font-weight: normal">1</td></tr>',
            '<tr><td style="text-align: left; font-weight: bold">all</td>'
            '<td style="text-align: right; font-weight: bold">2</td></tr>',
            "</table>",
            "<p>&amp;.</p>",
        ]
    )


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_html_shows_what_is_printed(shown):
    html, text = shown._repr_html_(), str(shown)
    assert any(ESCAPED in cell for cell in cells(html))
    assert ODD not in html
    assert ODD in text
    words = [word.replace(ESCAPED, ODD) for cell in cells(html) for word in cell.split()]
    assert all(word in text for word in words)


def test_an_export_prints_its_files_and_what_they_share():
    table = text_table(
        ["file", "task", "size", "precision", "difference to Keras"],
        [["a.onnx", ODD, "1.50 kB", "float32", "1.0e-06"]],
    )
    assert str(SHOWN["export"]) == (
        f"{table}\nShared: shared.data (2.00 kB). In all 3.50 kB.\nWritten: a.onnx."
    )
    assert "<p>Written: a.onnx.</p>" in SHOWN["export"]._repr_html_()


def test_a_pack_shows_its_tasks_and_what_is_free():
    net = packed(mlp_trunk(), one=0.75)
    net.note_results("one", retrained=0.5)
    net.add_task("two", layers.Dense(3), classes=["a", "b", "c"])
    html = net._repr_html_()
    assert cells(html) == [
        "task", "classes", "retrained", "packed weights",
        "one", "-", "50.0%", "25.0%",
        "free", "", "", "75.0%",
    ]  # fmt: skip
    assert "&lt;PackNet of trunk &#x27;mlp&#x27;: tasks one; task two open (training)&gt;" in html
    assert cells(packnet_tf.PackNet(mlp_trunk())._repr_html_())[-3:] == ["free", "", "100.0%"]
