"""Folders of images are checked before training starts."""

import re
import unicodedata

import pytest

from helpers.image_folders import write_task
from packnet_tf.apps.device.labelled import labelled_images
from packnet_tf.apps.images.folders import read_folder, readable


def fill(root, **splits):
    """fill(root, train={"cat": 3}) writes three (empty) image files of a class."""
    for split, classes in splits.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                (root / split / name / f"{number}.jpg").touch()
    return root


def test_classes_are_sorted_and_labels_follow(tmp_path):
    folder = read_folder(
        fill(tmp_path, train={"dog": 2, "cat": 3}, validation={"cat": 1, "dog": 1})
    )
    assert folder.classes == ["cat", "dog"]
    assert [label for _, label in folder.files["train"]] == [0, 0, 0, 1, 1]
    assert set(folder.files) == {"train", "validation"}
    assert not folder.split


def test_other_files_and_hidden_folders_are_left_out(tmp_path):
    fill(tmp_path, train={"dog": 2, "cat": 3, ".cache": 1})
    (tmp_path / "train" / "cat" / "notes.txt").touch()
    (tmp_path / "train" / "readme.md").touch()
    assert read_folder(tmp_path).classes == ["cat", "dog"]


def test_images_in_no_class_folder_are_reported(tmp_path):
    fill(tmp_path, train={"dog": 2, "cat": 3})
    for file in ("train/1.jpg", "train/2.PNG", "train/.3.jpg", "4.jpg", "5.md"):
        (tmp_path / file).touch()
    assert read_folder(tmp_path).notes == [
        f"1 image is in '{tmp_path}' itself, in no split, and left out.",
        f"2 images are in '{tmp_path / 'train'}' itself, in no class folder, and left out.",
    ]
    assert labelled_images(tmp_path / "train", None, None, None).notes == [
        f"2 images are in '{tmp_path / 'train'}' itself, in no class folder, and left out."
    ]


def test_folders_within_a_class_folder_are_looked_into_as_evaluate_does(tmp_path):
    fill(tmp_path, train={"dog": 2, "cat": 3})
    fill(tmp_path / "train" / "cat", **{"2024": {"may": 2, ".thumbs": 4}, ".old": {"june": 1}})
    names = [path for path, _ in read_folder(tmp_path).files["train"] if "2024" in path]
    names += [path for path, _ in read_folder(tmp_path).files["validation"] if "2024" in path]
    may = tmp_path / "train" / "cat" / "2024" / "may"
    assert sorted(names) == [str(may / "0.jpg"), str(may / "1.jpg")]
    assert labelled_images(tmp_path / "train", None, None, None).files == sorted(
        [pair for split in ("train", "validation") for pair in read_folder(tmp_path).files[split]],
        key=lambda pair: (pair[1], pair[0]),
    )


@pytest.mark.parametrize("names", [("Train", "val", "Test"), ("training", "valid", "testing")])
def test_splits_are_known_by_what_people_call_them(names, tmp_path):
    train, validation, test = names
    some = {"cat": 2, "dog": 1}
    fill(tmp_path, **{train: {"cat": 3, "dog": 3}, validation: some, test: some})
    folder = read_folder(tmp_path)
    assert {split: len(files) for split, files in folder.files.items()} == {
        "train": 6, "validation": 3, "test": 3
    }  # fmt: skip
    assert not folder.split
    assert labelled_images(tmp_path, None, None, 2).folder == tmp_path / test
    assert labelled_images(tmp_path, "validation", None, 2).folder == tmp_path / validation


def test_class_folders_alone_are_all_for_training(tmp_path):
    fill(tmp_path, pets={"train": 20, "cat": 10})  # and a class may be called like a split
    folder = read_folder(tmp_path / "pets")
    assert folder.classes == ["cat", "train"]
    assert {split: len(files) for split, files in folder.files.items()} == {
        "train": 27, "validation": 3
    }  # fmt: skip


def test_splits_without_class_folders_are_no_classes(tmp_path):
    """As competitions hand them out: images by number, and a table that says what is on them."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "1.jpg").touch()
    for read in (read_folder, lambda root: labelled_images(root, None, None, None)):
        with pytest.raises(ValueError, match="have no class folders, so nothing says what is on"):
            read(tmp_path)


def test_folders_beside_the_splits_are_said(tmp_path):
    fill(tmp_path, train={"cat": 3, "dog": 3}, extra={"cow": 1})
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.jpg").touch()
    folder = read_folder(tmp_path)
    assert folder.notes == [
        f"'{tmp_path / 'test'}' has no class folders, and is left out.",
        f"'{tmp_path / 'extra'}' is no split, and is left out.",
    ]
    assert set(folder.files) == {"train", "validation"}
    with pytest.raises(FileNotFoundError, match="test' has no class folders, and is left out"):
        labelled_images(tmp_path, None, None, None)


def test_what_is_left_out_is_said(tmp_path):
    fill(tmp_path, train={"dog": 2, "cat": 3, "cow": 0, "__MACOSX": 1}, test={"dog": 1, "cat": 0})
    (tmp_path / "train" / "cat" / "film.mp4").touch()
    (tmp_path / "train" / "dog" / "phone.HEIC").touch()
    (tmp_path / "train" / "dog" / "LICENSE").touch()
    folder = read_folder(tmp_path)
    assert folder.classes == ["cat", "dog"]
    train, test = tmp_path / "train", tmp_path / "test"
    assert folder.notes == [
        f"'{train / '__MACOSX'}' is left out: an archiver put it there.",
        f"3 files in '{train}' left out, of kinds that Pillow does not decode: no suffix (1), "
        ".heic (1), .mp4 (1).",
        f"Class 'cow' is left out: '{train}' has no image of it.",
        f"'{test}' has no image of class 'cat'.",
    ]
    assert readable(read_folder(write_task(tmp_path / "sound"))).notes == []


def test_every_suffix_that_pillow_decodes_is_taken(tmp_path):
    fill(tmp_path, train={"cat": 1, "dog": 1})
    for suffix in ("jpeg", "jfif", "JPE", "avif", "jp2", "mpo", "tga", "webp", "tif"):
        (tmp_path / "train" / "cat" / f"0.{suffix}").touch()
        (tmp_path / "train" / "dog" / f"0.{suffix}").touch()
    assert sum(map(len, read_folder(tmp_path).files.values())) == 20


def test_one_name_in_two_normal_forms_is_one_class(tmp_path):
    for split, form in (("train", "NFD"), ("test", "NFC")):
        fill(tmp_path, **{split: {unicodedata.normalize(form, "Café"): 3, "Tee": 3}})
    folder = read_folder(tmp_path)
    assert folder.classes == ["Caf\xe9", "Tee"]
    assert len(folder.files["test"]) == 6
    of_an_older_file = [unicodedata.normalize("NFD", "Café"), "Tee"]
    assert len(labelled_images(tmp_path, None, of_an_older_file, 2).files) == 6


def test_links_are_followed_and_do_not_go_round(tmp_path):
    fill(tmp_path, train={"dog": 2, "cat": 3}, store={"more": 4})
    (tmp_path / "train" / "cat" / "linked").symlink_to(tmp_path / "store" / "more")
    (tmp_path / "store" / "more" / "back").symlink_to(tmp_path / "store" / "more")
    (tmp_path / "train" / "dog" / "up").symlink_to(tmp_path / "train" / "dog")
    (tmp_path / "train" / "dog" / "above").symlink_to(tmp_path / "train")  # cats are no dogs
    (tmp_path / "train" / "dog" / "top").symlink_to(tmp_path)
    assert sum(map(len, read_folder(tmp_path).files.values())) == 9


def test_validation_comes_from_a_seeded_split_of_every_class(tmp_path):
    fill(tmp_path, train={"cat": 20, "dog": 10})
    folder = read_folder(tmp_path, validation_share=0.2, seed=1)
    assert folder.split
    assert [label for _, label in folder.files["validation"]] == [0] * 4 + [1] * 2
    assert not set(folder.files["train"]) & set(folder.files["validation"])
    assert len(folder.files["train"]) + len(folder.files["validation"]) == 30
    assert read_folder(tmp_path, 0.2, seed=1) == folder
    assert read_folder(tmp_path, 0.2, seed=2) != folder


@pytest.mark.parametrize(
    ("splits", "text"),
    [
        ({"validation": {"a": 1}}, "has no folder 'train'. Expected DIR/{train,validation,test}/"),
        ({"train": {}}, "has no images in class folders. Expected DIR/{train,validation,test}/"),
        ({"train": {"a": 3}}, "has images of one class only, 'a'"),
        ({"train": {"a": 3, "b": 0}}, "Class 'b' is left out: "),
        (
            {"train": {"a": 3, "b": 3}, "Training": {"a": 3}},
            "are both the 'train' of",
        ),
        ({"train": {"a": 3, "b": 3}, "val": {"a": 0, "b": 0}}, "val' has no images. Expected DIR"),
        (
            {"train": {"a": 3, "b": 3}, "validation": {"a": 1}},
            "validation' lacks the class 'b' that 'train' has. Every split needs the same class "
            "folders: 'a', 'b'.",
        ),
        (
            {"train": {"a": 3, "b": 3}, "test": {"a": 1, "b": 1, "c": 1}},
            "test' has a class 'c' that 'train' lacks",
        ),
        ({"train": {"a": 3, "b": 1}}, "no folder 'validation', and one training image of 'b': "),
        ({"train": {"a": 1, "b": 1}}, "one training image of 'a', 'b': "),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(splits, text, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(text)):
        read_folder(fill(tmp_path, **splits))


def test_a_missing_folder_and_one_without_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder '.*nowhere'"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="has no images in class folders"):
        read_folder(tmp_path)


def test_unreadable_images_are_left_out_and_named(tmp_path):
    whole = read_folder(write_task(tmp_path / "task"))
    path, _ = whole.files["train"][3]
    with open(path, "wb") as file:
        file.write(b"no image")
    folder = readable(whole)
    assert set(whole.files["train"]) - set(folder.files["train"]) == {(path, 0)}
    assert folder.files["test"] == whole.files["test"]
    assert list(folder.unreadable) == [path]
    assert f"'{path}' is not a readable image" in folder.unreadable[path]


def test_a_class_keeps_an_image_to_train_on(tmp_path):
    folder = read_folder(fill(tmp_path, train={"a": 2, "b": 4}), validation_share=0.9)
    for split, counts in {"train": [1, 1], "validation": [1, 3]}.items():
        labels = [label for _, label in folder.files[split]]
        assert [labels.count(0), labels.count(1)] == counts


def test_hidden_files_are_no_images(tmp_path):
    root = write_task(tmp_path / "task")
    (root / "train" / "dark" / "._00.png").write_bytes(b"what a Mac leaves on foreign disks")
    assert len(read_folder(root).files["train"]) == 24


def damage(*paths):
    for path in paths:
        with open(path, "wb") as file:
            file.write(b"no image")


def test_a_class_without_a_readable_image_to_train_on_is_an_error(tmp_path):
    folder = read_folder(write_task(tmp_path / "task", train=1))
    damage(folder.files["train"][1][0])
    with pytest.raises(ValueError, match=r"class 'light' in 'train' can be read: '.*00"):
        readable(folder)


def test_a_split_without_a_readable_image_is_an_error(tmp_path):
    folder = read_folder(write_task(tmp_path / "task", held_out=1))
    damage(*(path for path, _ in folder.files["validation"]))
    with pytest.raises(ValueError, match="No image of class 'dark' in 'validation' can be read:"):
        readable(folder)


def test_a_class_without_a_readable_image_to_measure_on_is_noted(tmp_path):
    folder = read_folder(write_task(tmp_path / "task", held_out=1))
    path, _ = folder.files["validation"][1]
    damage(path)
    found = readable(folder)
    assert len(found.files["validation"]) == 1
    [note] = found.notes
    assert note.startswith(f"No image of class 'light' in 'validation' can be read: '{path}' is")
    assert note.endswith(". Nothing measures it there.")
