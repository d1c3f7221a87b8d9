"""`packnet evaluate`: accuracies counted by hand, and folders that do not fit."""

import csv
import json

import numpy as np
import pytest

from helpers.image_folders import write_task
from helpers.onnx_files import COLOURS, manifest, write_model, write_other_model, write_picture
from helpers.pack_helpers import conv_trunk, logits, packed
from packnet_tf.apps.commands.evaluate import as_table
from packnet_tf.apps.device.evaluation import ClassScore, score, summary
from packnet_tf.apps.device.labelled import labelled_images
from packnet_tf.apps.device.onnx_accuracy import onnx_accuracy
from packnet_tf.apps.images.pixels import read_image
from packnet_tf.apps.main import main
from packnet_tf.backend.text import listed

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def evaluate(capsys, model, data, *arguments):
    status = main(["evaluate", f"--model={model}", f"--data={data}", *map(str, arguments)])
    out = capsys.readouterr()
    return status, out.out, out.err


def write_colours(folder, **classes):
    """Writes pictures, `red=[RED, BLUE]`: two in the folder `red`, one of them blue."""
    for name, colours in classes.items():
        for number, colour in enumerate(colours):
            write_picture(folder / name / f"{number}.png", colour)
    return folder


@pytest.fixture
def colours(tmp_path):
    """Five of eight pictures look like their class; a class's worth of red is taken for blue."""
    return write_colours(
        tmp_path / "colours",
        red=[RED, BLUE, BLUE, GREEN],
        green=[GREEN, GREEN, GREEN],
        blue=[BLUE],
    )


# Counting


def test_scores_are_counted_per_class():
    labels = [0, 0, 0, 0, 1, 1]
    answers = [[0, 1], [2, 0], [2, 1], [1, 2], [1, 0], [1, 2]]
    red = ClassScore("red", images=4, right=1, in_top=2, taken_for=("blue", 2))
    green = ClassScore("green", images=2, right=2, in_top=2, taken_for=None)
    assert score(labels, answers, COLOURS, top=True) == [red, green]
    assert summary([red, green]) == {
        "accuracy": 3 / 6,
        "mean_class_accuracy": (1 / 4 + 1) / 2,
        "top5_accuracy": 4 / 6,
    }


def test_of_confusions_as_frequent_as_each_other_the_first_class_is_named():
    [red] = score([0, 0], [[2], [1]], COLOURS, top=False)
    assert red == ClassScore("red", images=2, right=0, in_top=None, taken_for=("green", 1))
    assert summary([red])["top5_accuracy"] is None


def test_the_table_has_classes_then_sums():
    scores = score([0, 0, 0, 1], [[0, 1], [1, 0], [2, 1], [1, 2]], COLOURS, top=True)
    assert as_table(scores) == "\n".join(
        [
            "class                images  accuracy   top 5  mostly taken for",
            "---------------------------------------------------------------",
            "red                       3     33.3%   66.7%         green (1)",
            "green                     1    100.0%  100.0%",
            "---------------------------------------------------------------",
            "all images                4     50.0%   75.0%",
            "mean of the classes             66.7%",
        ]
    )


# The command


def test_a_folder_of_classes_is_measured(colours, tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx", task="colours")
    status, out, err = evaluate(capsys, model, colours)
    assert status == 0
    assert err == (
        f"'{colours}' has no folder 'test' or 'validation': all of its images count, also those "
        "that a task was trained with.\n"
    )
    assert out == "\n".join(
        [
            f"Task colours: {model} on {colours}",
            "",
            "class                images  accuracy  mostly taken for",
            "-------------------------------------------------------",
            "red                       4     25.0%          blue (2)",
            "green                     3    100.0%",
            "blue                      1    100.0%",
            "-------------------------------------------------------",
            "all images                8     62.5%",
            "mean of the classes             75.0%",
            "",
        ]
    )


def test_json_has_the_same(colours, tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx", task="colours")
    status, out, _ = evaluate(capsys, model, colours, "--json")
    assert status == 0
    nothing = {"top5_accuracy": None}
    assert json.loads(out) == {
        "task": "colours",
        "file": model,
        "data": str(colours),
        "images": 8,
        "accuracy": 5 / 8,
        "mean_class_accuracy": 0.75,
        **nothing,
        "classes": [
            {
                "name": "red",
                "images": 4,
                "accuracy": 0.25,
                **nothing,
                "taken_for": {"name": "blue", "images": 2},
            },
            {"name": "green", "images": 3, "accuracy": 1.0, **nothing, "taken_for": None},
            {"name": "blue", "images": 1, "accuracy": 1.0, **nothing, "taken_for": None},
        ],
        "errors": [],
    }


@pytest.mark.parametrize(
    "form",
    [
        {"output": "probabilities"},
        {"output": "top", "k": 1},
        {"dtype": "float32", "size": (4, 3), "pixel_range": "0,1", "matrix": np.eye(3)},
        {"dtype": "float32", "size": (4, 3), "pixel_range": "0,255", "batch": 5},
    ],
)
def test_every_form_of_file_scores_the_same(form, colours, tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx", **form)
    _, out, _ = evaluate(capsys, model, colours, "--json")
    found = json.loads(out)
    assert (found["images"], found["accuracy"]) == (8, 5 / 8)
    assert [one["accuracy"] for one in found["classes"]] == [0.25, 1, 1]


@pytest.mark.parametrize("output", ["logits", "top"])
def test_with_more_than_five_classes_the_first_five_count_too(output, tmp_path, capsys):
    matrix = [[6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6], [0] * 7]  # red: a, b, c ...
    matrix = np.array(matrix) / 100
    data = write_colours(tmp_path / "letters", **{name: [RED] for name in "abcdefg"})
    model = write_model(tmp_path / "m.onnx", output, classes="abcdefg", matrix=matrix, k=5)
    status, out, _ = evaluate(capsys, model, data, "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["accuracy"], found["top5_accuracy"]) == (1 / 7, 5 / 7)
    assert [one["top5_accuracy"] for one in found["classes"]] == [1, 1, 1, 1, 1, 0, 0]


def test_a_file_that_gives_fewer_than_five_classes_is_measured_by_its_first(tmp_path, capsys):
    matrix = np.array([[6, 5, 4, 3, 2, 1], [0] * 6, [0] * 6]) / 100
    data = write_colours(tmp_path / "letters", **{name: [RED] for name in "abcdef"})
    model = write_model(tmp_path / "m.onnx", "top", classes="abcdef", matrix=matrix, k=2)
    _, out, _ = evaluate(capsys, model, data, "--json")
    found = json.loads(out)
    assert (found["accuracy"], found["top5_accuracy"]) == (1 / 6, None)


def test_classes_are_matched_by_name_whatever_their_order(colours, tmp_path, capsys):
    names = ("blue", "red", "green")
    matrix = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    model = write_model(tmp_path / "m.onnx", classes=names, matrix=matrix)
    _, out, _ = evaluate(capsys, model, colours, "--json")
    found = json.loads(out)
    assert found["accuracy"] == 5 / 8
    assert [one["name"] for one in found["classes"]] == ["blue", "red", "green"]


def test_classes_without_names_are_the_sorted_folders(colours, tmp_path, capsys):
    matrix = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]  # sorted: blue, green, red
    model = write_model(tmp_path / "m.onnx", classes=None, matrix=matrix)
    _, out, _ = evaluate(capsys, model, colours, "--json")
    assert json.loads(out)["accuracy"] == 5 / 8


def test_unreadable_images_are_left_out_and_reported(colours, tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx")
    bad = colours / "red" / "9.png"
    bad.write_bytes(b"no image")
    text = f"'{bad}' is not a readable image: cannot identify image file '{bad}'"
    status, out, err = evaluate(capsys, model, colours, "--json")
    assert (status, err.split("\n")[1]) == (1, f"packnet evaluate: {text}")
    assert json.loads(out)["images"] == 8
    assert json.loads(out)["errors"] == [text]


def test_a_folder_without_one_readable_image_is_an_error(tmp_path, capsys):
    data = tmp_path / "data"
    for name in COLOURS:
        (data / name).mkdir(parents=True)
        (data / name / "1.png").write_bytes(b"no image")
    status, out, err = evaluate(capsys, write_model(tmp_path / "m.onnx"), data)
    assert (status, out) == (1, "")
    assert err.split("\n")[1].startswith(
        f"packnet evaluate: No image of '{data}' can be read: '{data / 'red' / '1.png'}' is not a "
    )


def test_a_folder_stands_for_the_one_task_in_it(colours, tmp_path, capsys):
    folder = tmp_path / "onnx"
    folder.mkdir()
    status, out, err = evaluate(capsys, folder, colours)
    assert (status, out) == (1, "")
    assert f"The folder '{folder}' has no manifest.json." in err
    write_model(folder / "model_task1.onnx")
    manifest(folder, "model_task1.onnx")
    status, out, _ = evaluate(capsys, folder, colours, "--json")
    assert (status, json.loads(out)["file"]) == (0, str(folder / "model_task1.onnx"))
    write_model(folder / "model_task2.onnx", task="two")
    manifest(folder, "model_task1.onnx", "model_task2.onnx")
    status, out, err = evaluate(capsys, folder, colours)
    assert (status, out) == (2, "")
    assert f"'{folder}' has the tasks ?, two; name one with --task. See" in err


def test_a_file_that_does_not_classify_is_refused(colours, tmp_path, capsys):
    model = write_other_model(tmp_path / "m.onnx", (4, 4, 3), (1, 2, 2, 5))
    status, out, err = evaluate(capsys, model, colours)
    assert (status, out) == (1, "")
    assert err.startswith(
        f"packnet evaluate: '{model}' does not classify: it answers with 'logits' of shape "
    )


def test_top_classes_beyond_the_folders_are_an_error(colours, tmp_path, capsys):
    matrix = [[0, 0, 0, 1]] * 3
    model = write_model(tmp_path / "m.onnx", "top", classes=None, matrix=matrix)
    status, out, err = evaluate(capsys, model, colours)
    assert (status, out) == (1, "")
    assert err.split("\n")[1] == (
        f"packnet evaluate: '{model}' answers with class 3, counted from 0, but '{colours}' has 3 "
        "class folders. The file has no class names: there must be a folder for every class, "
        "sorted as in training."
    )


# Real files


def test_the_accuracy_is_that_of_the_keras_view(tmp_path, capsys):
    from packnet_tf.export import export_onnx

    data = write_task(tmp_path / "greys", classes=("a", "b", "c"), held_out=9)
    net, model = packed(conv_trunk(), one=0.5), tmp_path / "m.onnx"
    export_onnx(net, "one", model, metadata={"pixel_range": "0,1"}, verbose=False)
    found = labelled_images(data, None, None, 3)
    images = np.stack([read_image(path, 6, 6, 1) for path, _ in found.files]) / np.float32(255)
    labels = np.array([label for _, label in found.files])
    right = logits(net.task_model("one"), images).argmax(-1) == labels
    _, out, _ = evaluate(capsys, model, data, "--json")
    measured = json.loads(out)
    assert measured["data"] == str(data / "test")
    assert measured["images"] == 27
    assert measured["accuracy"] == right.mean()
    for label, one in enumerate(measured["classes"]):
        assert one["accuracy"] == right[labels == label].mean()
    assert onnx_accuracy(model, [(images, labels)]) == right.mean()


@pytest.mark.parametrize("output", ["logits", "probabilities", "top"])
def test_accuracy_on_arrays_takes_every_form_of_answer(output, tmp_path):
    path = write_model(tmp_path / "m.onnx", output, dtype="float32")
    images = np.array([RED, GREEN, BLUE, BLUE], "float32")[:, None, None]
    batches = [(images[:3], [0, 0, 2]), (images[3:], [2])]
    assert onnx_accuracy(path, batches) == 3 / 4


# Folders


@pytest.mark.parametrize(
    ("there", "split", "taken"),
    [
        (["train", "validation", "test"], None, "test"),
        (["train", "validation"], None, "validation"),
        (["train", "test"], None, "test"),
        (["train", "test"], "train", "train"),
        (["train", "val"], "val", "val"),
        (["train", "val"], "validation", "val"),
    ],
)
def test_the_split_is_test_else_validation_else_the_one_named(there, split, taken, tmp_path):
    for name in there:
        write_colours(tmp_path / name, red=[RED], blue=[BLUE])
    found = labelled_images(tmp_path, split, ["red", "blue"], 2)
    assert found.folder == tmp_path / taken
    assert found.files == [
        (str(tmp_path / taken / "red" / "0.png"), 0),
        (str(tmp_path / taken / "blue" / "0.png"), 1),
    ]


LAYOUT = "Expected DIR/{train,validation,test}/<class>/<image>, or DIR/<class>/<image>."


def test_folders_that_are_not_there_are_named(tmp_path):
    for directory, split, text in [
        (tmp_path / "gone", None, f"There is no folder '{tmp_path / 'gone'}'. {LAYOUT}"),
        (tmp_path, "test", f"'{tmp_path}' has no folder 'test'. {LAYOUT}"),
        (tmp_path, None, f"'{tmp_path}' has no images in class folders. {LAYOUT}"),
    ]:
        with pytest.raises(FileNotFoundError) as error:
            labelled_images(directory, split, None, None)
        assert str(error.value) == text


def test_training_images_are_measured_on_request_only(tmp_path):
    write_colours(tmp_path / "train", red=[RED])
    with pytest.raises(FileNotFoundError) as error:
        labelled_images(tmp_path, None, ["red"], 1)
    assert str(error.value) == (
        f"'{tmp_path}' has no folder 'test' or 'validation'. Name '{tmp_path / 'train'}' to "
        "measure on the images it was trained with."
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["blue", "green", "red", "grey", "pink"], "lacks 'grey', 'pink'"),
        (["blue"], "has 'green', 'red', which the task does not know"),
        (
            ["blue", "green", "grey"],
            "lacks 'grey' and has 'red', which the task does not know",
        ),
    ],
)
def test_missing_and_unknown_classes_are_named(classes, said, colours):
    with pytest.raises(ValueError) as error:
        labelled_images(colours, None, classes, len(classes))
    assert str(error.value) == (
        f"'{colours}' {said}. Expected one folder per class of the task: {listed(classes)}."
    )


def test_without_names_the_number_of_folders_must_fit(colours):
    with pytest.raises(ValueError) as error:
        labelled_images(colours, None, None, 4)
    assert str(error.value) == (
        f"'{colours}' has 3 class folders ('blue', 'green', 'red'), and the task has 4 classes "
        "without names. Expected one folder per class, sorted as in training."
    )
    assert labelled_images(colours, None, None, None).classes == ["blue", "green", "red"]


def test_a_class_without_images_is_said(colours):
    (colours / "blue" / "0.png").unlink()
    found = labelled_images(colours, None, COLOURS, 3)
    assert found.notes[0] == f"'{colours}' has no image of class 'blue'."
    assert COLOURS.index("blue") not in [label for _, label in found.files]


def test_an_evaluation_is_written_to_a_folder(colours, tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx")
    status, out, _ = evaluate(capsys, model, colours, f"--output={tmp_path / 'found'}")
    assert status == 0
    assert f"Written: {tmp_path / 'found'}" in out
    with (tmp_path / "found" / "confusion.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["right class / answer", *COLOURS],
            ["red", "1", "1", "2"],
            ["green", "0", "3", "0"],
            ["blue", "0", "0", "1"],
        ]
    with (tmp_path / "found" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    wrong = [row for row in rows if row["right"] == "0"]
    assert {(row["class"], row["answer"]) for row in wrong} == {("red", "blue"), ("red", "green")}
    assert all(float(row["probability"]) > 0.33 for row in rows)
    scores = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert scores["accuracy"] == 5 / 8
    status, out, _ = evaluate(capsys, model, colours, f"--output={tmp_path / 'found'}", "--json")
    assert json.loads(out) == scores
