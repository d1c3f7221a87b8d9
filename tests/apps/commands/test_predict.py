"""`packnet predict`: folders, several models, JSON, and what it cannot read."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import packnet_tf
from helpers.onnx_files import manifest, write_model, write_other_model, write_picture
from packnet_tf.apps.device.classifier import Classifier
from packnet_tf.apps.device.counter import counted
from packnet_tf.apps.images.listing import images_in
from packnet_tf.apps.main import main

ORANGE = (250, 120, 10)  # logits of (25, 12, 1) in a file of write_model


def predict(capsys, *arguments):
    status = main(["predict", *map(str, arguments)])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_one_model_prints_a_line_per_image(tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx", matrix=np.eye(3) / 100)
    picture = write_picture(tmp_path / "p.png", (100, 0, 0))
    # e / (e + 2) and 1 / (e + 2)
    expected = f"{picture}: red 57.6%, green 21.2%, blue 21.2%\n"
    assert predict(capsys, f"--model={model}", picture) == (0, expected, "")
    expected = f"{picture}: red 57.6%\n"
    assert predict(capsys, f"--model={model}", "--top=1", picture) == (0, expected, "")
    write_model(model, matrix=np.eye(3) / 100, classes=None)
    expected = f"{picture}: class 0 57.6%\n"
    assert predict(capsys, f"--model={model}", "--top=1", picture) == (0, expected, "")


def test_several_models_print_a_line_each_that_names_the_task(tmp_path, capsys):
    picture = write_picture(tmp_path / "p.png", ORANGE)
    models = [
        write_model(tmp_path / "a.onnx", task="colours"),
        write_model(tmp_path / "b.onnx", "top", task="fruits", classes=("plum", "kiwi", "pea")),
    ]
    flags = [f"--model={path}" for path in models]
    expected = f"{picture} [colours]: red 100.0%\n{picture} [fruits]: plum 100.0%\n"
    assert predict(capsys, *flags, "--top=1", picture) == (0, expected, "")
    write_model(models[1], "top", task="colours")
    expected = "".join(f"{picture} [colours, {path}]: red 100.0%\n" for path in models)
    assert predict(capsys, *flags, "--top=1", picture) == (0, expected, "")


def test_json_has_images_models_classes_and_errors(tmp_path, capsys):
    good = write_picture(tmp_path / "good.png", (0, 0, 0))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    named = write_model(tmp_path / "a.onnx", task="colours")
    nameless = write_model(tmp_path / "b.onnx", classes=None, task="others")
    flags = [f"--model={named}", f"--model={nameless}", "--top=1", "--json"]
    status, out, err = predict(capsys, *flags, bad, good)
    third = pytest.approx(1 / 3)
    assert json.loads(out) == [
        {
            "image": str(bad),
            "models": [],
            "error": f"'{bad}' is not a readable image: cannot identify image file '{bad}'",
        },
        {
            "image": good,
            "models": [
                {
                    "task": "colours",
                    "file": named,
                    "top": [{"index": 0, "name": "red", "probability": third}],
                },
                {
                    "task": "others",
                    "file": nameless,
                    "top": [{"index": 0, "name": None, "probability": third}],
                },
            ],
            "error": None,
        },
    ]
    assert status == 1
    assert err == (
        f"packnet predict: '{bad}' is not a readable image: cannot identify image file '{bad}'\n"
    )


def test_damaged_and_missing_images_are_reported_when_the_others_are_done(tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx")
    good = write_picture(tmp_path / "good.png", ORANGE)
    whole = pathlib.Path(write_picture(tmp_path / "half.png", ORANGE, size=(90, 90))).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    gone = tmp_path / "gone.png"
    status, out, err = predict(
        capsys, f"--model={model}", "--top=1", tmp_path / "half.png", gone, good
    )
    assert (status, out) == (1, f"{good}: red 100.0%\n")
    assert err.startswith(f"packnet predict: '{tmp_path / 'half.png'}' is not a readable image: ")
    assert err.endswith(f"; [Errno 2] No such file or directory: '{gone}'\n")


def test_folders_stand_for_all_images_in_them_sorted(tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx")
    names = ["b/2.png", "b/1.JPG", "a.bmp", "b/c/d.png", ".hidden/e.png", "b/.f.png"]
    for name in names:
        write_picture(tmp_path / "photos" / name, ORANGE)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "b" / "more").symlink_to(tmp_path / "gone")
    photos = tmp_path / "photos"
    status, out, err = predict(capsys, f"--model={model}", "--top=1", photos, photos / "a.bmp")
    assert status == 0
    assert err.splitlines() == [
        f"'{photos / 'b' / 'more'}' is a link to '{tmp_path / 'gone'}', which leads nowhere: No "
        "such file or directory. It is left out.",
        f"1 file in '{photos}' left out, of kinds that Pillow does not decode: .txt (1).",
    ]
    seen = [line.split(": ")[0] for line in out.splitlines()]
    order = ["a.bmp", "b/1.JPG", "b/2.png", "b/c/d.png", "a.bmp"]
    assert seen == [str(photos / name) for name in order]


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        images_in(tmp_path)
    assert str(error.value) == (
        f"There are no images in '{tmp_path}'. Expected files that Pillow decodes, .jpg or .png "
        "for instance."
    )
    (tmp_path / "phone.heic").touch()
    with pytest.raises(FileNotFoundError, match=r"1 file in .* left out, .* decode: \.heic \(1\)"):
        images_in(tmp_path)


def test_an_image_is_decoded_once_for_every_size_wanted(tmp_path, capsys, monkeypatch):
    decoded = []
    load = Classifier.load

    def noted(self, path):
        decoded.append((self.size, path))
        return load(self, path)

    monkeypatch.setattr(Classifier, "load", noted)
    picture = write_picture(tmp_path / "p.png", ORANGE)
    facts = {"dtype": "float32", "pixel_range": "0,255"}
    models = [
        write_model(tmp_path / "a.onnx"),
        write_model(tmp_path / "b.onnx", "top"),
        write_model(tmp_path / "c.onnx", size=(5, 5), **facts),
        write_model(tmp_path / "d.onnx", size=(5, 5), **facts),
        write_model(tmp_path / "e.onnx", size=(6, 5), **facts),
    ]
    status, out, _ = predict(capsys, *(f"--model={path}" for path in models), picture)
    assert (status, len(out.splitlines())) == (0, 5)
    assert decoded == [(None, picture), ((5, 5), picture), ((6, 5), picture)]


def test_a_folder_with_a_manifest_stands_for_its_tasks(tmp_path, capsys):
    write_model(tmp_path / "model_task1.onnx", task="one")
    write_model(tmp_path / "model_task2.onnx", task="two", beside="shared.data")
    write_model(tmp_path / "other.onnx", task="not listed")
    manifest(tmp_path, "model_task1.onnx", "model_task2.onnx", shared=["shared.data"])
    picture = write_picture(tmp_path / "p.png", ORANGE)
    expected = f"{picture} [one]: red 100.0%\n{picture} [two]: red 100.0%\n"
    assert predict(capsys, f"--model={tmp_path}", "--top=1", picture) == (0, expected, "")


def test_a_changed_file_of_a_folder_is_refused_by_name(tmp_path, capsys):
    path = tmp_path / "model_task1.onnx"
    write_model(path, task="one")
    manifest(tmp_path, "model_task1.onnx")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    picture = write_picture(tmp_path / "p.png", ORANGE)
    assert predict(capsys, f"--model={tmp_path}", picture) == (
        1,
        "",
        f"packnet predict: '{path}': its checksum is not the manifest's: it is damaged or another "
        "file. Copy the model and its weights again, from one export to one folder.\n",
    )


def test_tasks_of_a_folder_that_do_not_classify_are_left_out(tmp_path, capsys):
    picture = write_picture(tmp_path / "p.png", ORANGE)
    write_model(tmp_path / "model_task1.onnx", task="one")
    spatial = write_other_model(tmp_path / "model_task2.onnx", (4, 4, 3), (1, 2, 2, 5))
    manifest(tmp_path, "model_task1.onnx", "model_task2.onnx")
    status, out, err = predict(capsys, f"--model={tmp_path}", "--top=1", picture)
    assert (status, out) == (0, f"{picture}: red 100.0%\n")
    assert err.startswith(f"Left out: '{spatial}' does not classify: it answers with 'logits' of")
    manifest(tmp_path, "model_task2.onnx")
    status, out, err = predict(capsys, f"--model={tmp_path}", picture)
    assert (status, out) == (1, "")
    assert err.startswith(f"packnet predict: '{spatial}' does not classify: ")


def test_a_folder_without_a_manifest_or_without_tasks_is_an_error(tmp_path, capsys):
    picture = write_picture(tmp_path / "p.png", ORANGE)
    assert predict(capsys, f"--model={tmp_path}", picture) == (
        1,
        "",
        f"packnet predict: The folder '{tmp_path}' has no manifest.json. Name a folder that "
        "packnet export wrote, or one .onnx file.\n",
    )
    manifest(tmp_path)
    assert predict(capsys, f"--model={tmp_path}", picture) == (
        1,
        "",
        f"packnet predict: '{tmp_path / 'manifest.json'}' lists no tasks. Write some with packnet "
        "export.\n",
    )


@pytest.mark.parametrize(
    ("flags", "facts", "said"),
    [([], {}, "'{}' does not say it"), (["--pixel_range=7"], {"pixel_range": "0,1"}, "got '7'")],
)
def test_a_range_of_pixels_that_is_not_known_is_a_wrong_flag(flags, facts, said, tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx", dtype="float32", **facts)
    picture = write_picture(tmp_path / "p.png", ORANGE)
    assert predict(capsys, f"--model={model}", *flags, picture) == (
        2,
        "",
        "packnet predict: the pixel range is two numbers, the lowest and the highest pixel value "
        f"the model wants; {said.format(model)}. Add --pixel_range=0,1 or --pixel_range=0,255. See "
        "packnet predict --help.\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--model={model}", "{data}"],
        ["evaluate", "--model={model}", "--data={data}"],
        ["benchmark", "{model}", "--data={data}", "--seconds=0", "--image_size=8"],
    ],
)
def test_neither_keras_nor_tensorflow_is_imported_on_the_device(arguments, tmp_path):
    model = write_model(tmp_path / "m.onnx", beside="shared.data")
    for name in ("red", "green", "blue"):
        write_picture(tmp_path / "data" / name / "1.png", name)
    arguments = [text.format(model=model, data=tmp_path / "data") for text in arguments]
    code = (
        "import sys\n"
        "from packnet_tf.apps.main import main\n"
        f"status = main({arguments!r})\n"
        "import importlib, pkgutil, packnet_tf.apps.device as device\n"
        "for module in pkgutil.iter_modules(device.__path__, 'packnet_tf.apps.device.'):\n"
        "    importlib.import_module(module.name)\n"
        "heavy = {'tensorflow', 'keras', 'tf2onnx', 'onnx', 'jax', 'matplotlib', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sys.exit(status)"
    )
    root = pathlib.Path(packnet_tf.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert "green" in done.stdout or "100.0%" in done.stdout


# The counter


def test_long_runs_are_counted_and_the_line_is_cleared(capsys, monkeypatch):
    clock = iter([0.0, 0.5, 2.5, 2.55, 2.7])
    monkeypatch.setattr("packnet_tf.apps.device.counter.time.monotonic", lambda: next(clock))
    assert list(counted("abcd", "images", shown=True)) == list("abcd")
    assert capsys.readouterr().err == "\r1 of 4 images \r3 of 4 images \r\x1b[K"


def test_short_runs_and_those_without_a_terminal_stay_quiet(capsys):
    assert list(counted("abcd", "images", shown=True)) == list("abcd")
    assert list(counted("abcd", "images")) == list("abcd")
    assert capsys.readouterr() == ("", "")


def test_names_cannot_move_the_cursor_or_change_what_is_read(tmp_path, capsys):
    names = ("red\x1b[2J", "gre\u202een", "bl\rue")
    model = write_model(tmp_path / "m.onnx", matrix=np.eye(3) / 100, classes=names)
    picture = write_picture(tmp_path / "a\x1b]0;b\x07\n.png", (100, 0, 0))
    status, out, _ = predict(capsys, f"--model={model}", picture)
    assert status == 0
    answers = r"a\x1b]0;b\x07\n.png: red\x1b[2J 57.6%, gre\u202een 21.2%, bl\rue 21.2%"
    assert out == f"{tmp_path}/{answers}\n"
    status, _, err = predict(capsys, f"--model={tmp_path}/no\x1b[31m.onnx", picture)
    assert status == 1
    assert "no\\x1b[31m.onnx" in err
    assert "\x1b" not in err
    entries = json.loads(predict(capsys, f"--model={model}", "--json", picture)[1])
    assert names[0] in json.dumps(entries, ensure_ascii=False).encode().decode("unicode_escape")
