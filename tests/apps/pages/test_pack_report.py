"""The report of a pack as a page: in a real browser, and with hostile names."""

import base64
import os
import re
import shutil
import warnings

import keras
import pytest
from PIL import Image

import packnet_tf
from helpers.browser import check_page, lay_out, needs_browser
from helpers.image_folders import task_plan, write_task, write_trunk
from helpers.pack_helpers import mlp_trunk
from packnet_tf.apps.main import main
from packnet_tf.apps.packs.training import train

NAMES = ("<b>dark 日本", "light & <script>alert(1)")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pack of one task, images whose classes are swapped, and the page about both."""
    folder = tmp_path_factory.mktemp("garden")
    write_task(folder / "shades", classes=NAMES)
    write_trunk(folder / "small.keras")
    train(task_plan(folder, epochs=2, prune_epoch=1))
    test = folder / "swapped"
    for name, other in (NAMES, NAMES[::-1]):
        shutil.copytree(folder / "shades" / "test" / name, test / other)
        image = next((test / other).iterdir())
        os.rename(image, os.fsencode(image.parent) + b"/\xff.png")  # as an old camera names it
    (folder / "pack.keras").rename(folder / "garden.keras")
    (folder / "pack.keras.runs").rename(folder / "garden.keras.runs")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")  # matplotlib has no font with such characters
        status = main(
            ["report", str(folder / "garden.keras"), f"--html={folder / 'page.html'}",
             f"--data=shades:{test}"]
        )  # fmt: skip
    assert status == 0
    return folder


def test_the_page_needs_nothing_from_elsewhere(place):
    page = (place / "page.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    assert "<b>dark" not in page
    assert page.count("data:image/svg+xml;base64,") == 4  # confusion, curves, storage, layers
    assert not list(place.glob("*.png"))
    figures = re.findall('data:image/svg.xml;base64,([^"]+)', page)
    assert any("&lt;b&gt;dark 日本</text>" in base64.b64decode(f).decode() for f in figures)
    assert "<small>?.png</small>" in page


def test_the_pictures_of_wrong_answers_are_shown_the_most_certain_first(place):
    page = (place / "page.html").read_text()
    shown = page.split("data:image/jpeg;base64,")[1:]
    assert 0 < len(shown) <= 12
    chances = [float(text.partition("%, is")[0].split()[-1]) for text in shown if "%, is" in text]
    assert len(chances) == len(shown)
    assert chances == sorted(chances, reverse=True)


@needs_browser
def test_the_page_fits_wide_and_narrow(place, tmp_path):
    found = lay_out(place / "page.html", tmp_path)
    check_page(found)
    lines = found["wide"]["text"].split("\n")
    assert lines[0] == "garden.keras"
    assert any(line.startswith("garden.keras holds 1 task in ") for line in lines[:4])
    assert NAMES[1] in found["narrow"]["text"]


def test_a_history_of_other_training_is_left_out(place, tmp_path):
    shutil.copytree(place, tmp_path / "place")
    history = tmp_path / "place" / "garden.keras.runs" / "shades" / "history.json"
    old, other = '"retrained": {', '"retrained": {"loss": 1.0}, "other": {'
    assert old in history.read_text()
    history.write_text(history.read_text().replace(old, other))
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "place" / "garden.keras"), f"--html={page}"]) == 0
    text = page.read_text()
    assert f"{history}&#39; is of another training of &#39;shades&#39;, so it is left out." in text
    assert text.count("data:image/svg+xml;base64,") == 2


def test_exported_files_answer_instead_of_the_pack(place, tmp_path, capsys):
    pack, page = str(place / "garden.keras"), tmp_path / "page.html"
    assert main(["export", pack, str(tmp_path / "onnx")]) == 0
    assert main(["report", pack, f"--html={page}", f"--model={tmp_path / 'onnx'}"]) == 0
    assert f"Measuring shades on {place / 'shades' / 'test'} ..." in capsys.readouterr().out
    assert f"right, by {tmp_path / 'onnx' / 'model_task1.onnx'}." in page.read_text()


def test_a_pack_with_an_open_task_alone_has_a_page(tmp_path, capsys):
    net = packnet_tf.PackNet(mlp_trunk())
    net.add_task("birds", keras.layers.Dense(3))
    net.save(tmp_path / "new.keras")
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "new.keras"), f"--html={page}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("new.keras holds no task yet: all of its packed weights are free.")
    assert "Task 'birds' is still open." in out
    assert "packed on" not in out + page.read_text()
    assert "Task &#39;birds&#39; is still open" in page.read_text().replace("'", "&#39;")
    assert main(["report", str(tmp_path / "new.keras"), f"--html={page}", "--data=a/"]) == 2
    assert "there is no task that gives classes" in capsys.readouterr().err


def test_a_picture_that_nobody_asked_for_is_no_reason_to_fail(place, tmp_path, capsys):
    pack = shutil.copy(place / "garden.keras", tmp_path)
    (tmp_path / "garden.png").mkdir()
    assert main(["report", pack]) == 0
    assert f"No picture, as '{tmp_path / 'garden.png'}' cannot" in capsys.readouterr().out
    assert main(["report", pack, f"--picture={tmp_path / 'garden.png'}"]) == 1


def test_a_picture_that_nobody_asked_for_replaces_none_but_its_own(place, tmp_path, capsys):
    pack = shutil.copy(place / "garden.keras", tmp_path)
    picture = tmp_path / "garden.png"
    history = {"loss": [0.5, 0.4], "accuracy": [0.6, 0.7]}
    for write in (
        lambda: Image.new("RGB", (7, 5)).save(picture),
        lambda: packnet_tf.plot_history(history, picture),
        lambda: picture.write_text(""),
    ):
        write()
        before = picture.read_bytes()
        assert main(["report", pack]) == 0
        said = f"No picture, as there is a '{picture}' that this version of packnet report has"
        assert said in capsys.readouterr().out
        assert picture.read_bytes() == before
    assert main(["report", pack, f"--picture={picture}"]) == 0
    drawn = picture.read_bytes()
    assert drawn != before
    picture.touch()
    assert main(["report", pack]) == 0
    assert f"Picture: {picture}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data=a/"], "--data is for the page; add --html=report.html"),
        (["--model=a.onnx"], "--model is for the page; add --html=report.html"),
        (["--html=a.html", "--json"], "--json prints, and --html writes a page"),
        (["--html=."], "--html=. is a folder; write --html=./report.html"),
    ],
)
def test_flags_that_go_without_the_page_are_refused(flags, said, place, capsys):
    assert main(["report", str(place / "garden.keras"), *flags]) == 2
    assert said in capsys.readouterr().err
