"""What is left out of folders of images is said; what hides a class or a split is an error."""

import contextlib
import os
import re

import pytest

from packnet_tf.apps.device.labelled import labelled_images
from packnet_tf.apps.images import entries
from packnet_tf.apps.images.folders import read_folder
from packnet_tf.apps.images.listing import images_in

GONE = "/nowhere/at/all"


def fill(root, *folders, count=2):
    """Writes (empty) image files into folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").touch()
    return root


@contextlib.contextmanager
def unreadable(monkeypatch, *folders):
    """Lets the system refuse to read folders, which it never does for root."""
    real = os.scandir

    def scandir(path):
        if os.fspath(path) in map(str, folders):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(entries.os, "scandir", scandir)
        yield


def nowhere(link):
    return f"'{link}' is a link to '{GONE}', which leads nowhere: No such file or directory."


@pytest.mark.parametrize("place", ["cat/more", "cat/2024/more"])
def test_a_link_that_leads_nowhere_is_reported(place, tmp_path):
    train = fill(tmp_path, "train/cat", "train/dog", "train/cat/2024") / "train"
    (train / place).symlink_to(GONE)
    folder = read_folder(tmp_path)
    assert folder.classes == ["cat", "dog"]
    assert folder.notes == [f"{nowhere(train / place)} It is left out."]
    assert labelled_images(train, None, None, None).notes == folder.notes
    assert images_in(tmp_path).notes == folder.notes


def test_a_link_that_leads_to_itself_is_reported(tmp_path):
    fill(tmp_path, "train/cat", "train/dog")
    (tmp_path / "train" / "cat" / "round").symlink_to("round")
    (note,) = read_folder(tmp_path).notes
    assert "is a link to 'round', which leads nowhere: Too many levels of symbolic links" in note


def test_a_link_beside_the_splits_is_reported_in_training_and_in_evaluation(tmp_path):
    fill(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    (tmp_path / "extra").symlink_to(GONE)
    notes = [f"{nowhere(tmp_path / 'extra')} It is left out."]
    assert read_folder(tmp_path).notes == notes
    assert labelled_images(tmp_path, None, ["cat", "dog"], 2).notes == notes


@pytest.mark.parametrize("split", ["train", "val", "Test"])
def test_a_split_that_leads_nowhere_is_an_error(split, tmp_path):
    other = "test" if split == "train" else "train"
    fill(tmp_path, f"{other}/cat", f"{other}/dog")
    (tmp_path / split).symlink_to(GONE)
    for read in (read_folder, lambda root: labelled_images(root, None, None, None)):
        with pytest.raises(ValueError, match=re.escape(f"{nowhere(tmp_path / split)} By its name")):
            read(tmp_path)


@pytest.mark.parametrize("place", ["train/horse", "test/dog"])
def test_a_class_that_leads_nowhere_is_an_error(place, tmp_path):
    fill(tmp_path, "train/cat", "train/dog", "test/cat")
    (tmp_path / place).symlink_to(GONE)
    said = re.escape(f"{nowhere(tmp_path / place)} By its place it is a class of '{tmp_path}")
    split = place.split("/")[0]
    for read in (read_folder, lambda root: labelled_images(root / split, None, None, None)):
        with pytest.raises(ValueError, match=said):
            read(tmp_path)


@pytest.mark.parametrize("place", ["", "train", "train/dog", "test", "test/cat"])
def test_a_split_or_class_that_cannot_be_read_is_an_error(place, tmp_path, monkeypatch):
    fill(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    reads = [read_folder]
    if "train" not in place:
        reads.append(lambda root: labelled_images(root, None, ["cat", "dog"], 2))
    said = f"Cannot read the folder '{tmp_path / place}': Permission denied. Make it readable, or"
    for read in reads:
        with (
            unreadable(monkeypatch, tmp_path / place),
            pytest.raises(PermissionError, match=re.escape(said)),
        ):
            read(tmp_path)


def test_a_folder_for_predict_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    fill(tmp_path, "photos")
    with (
        unreadable(monkeypatch, tmp_path / "photos"),
        pytest.raises(PermissionError, match=r"Cannot read the folder '.*photos': Permission"),
    ):
        images_in(tmp_path / "photos")


def test_a_folder_within_a_class_that_cannot_be_read_is_reported(tmp_path, monkeypatch):
    fill(tmp_path, "train/cat", "train/dog", "train/cat/2024")
    within = tmp_path / "train" / "cat" / "2024"
    with unreadable(monkeypatch, within):
        folder = read_folder(tmp_path)
    assert folder.notes == [
        f"Cannot read the folder '{within}': Permission denied. Make it readable, or move it away. "
        "Its images are left out."
    ]
    assert sum(map(len, folder.files.values())) == 4


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX"])
def test_folders_that_no_user_made_are_neither_classes_nor_images(name, tmp_path):
    fill(tmp_path, f"train/{name}", f"train/cat/{name}", f"train/dog/{name}/more", f"{name}/cat")
    fill(tmp_path, "train/cat/2024", "train/dog/2024")
    folder = read_folder(tmp_path)
    assert folder.classes == ["cat", "dog"]
    assert not [path for files in folder.files.values() for path, _ in files if name in path]
    why = entries.MADE_BY_OTHERS[name.lower()]
    assert folder.notes == [
        f"'{tmp_path / name}' is left out: {why}.",
        f"3 folders '{name}' in '{tmp_path / 'train'}' are left out: {why}.",
    ]


def test_folders_that_no_user_made_make_no_split_of_images_without_classes(tmp_path):
    fill(tmp_path, "train", "test", "train/@eaDir", "test/@eaDir", "@eaDir")
    with pytest.raises(ValueError, match="have no class folders, so nothing says what is on"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "splits", [("seg_train", "seg_test"), ("seg_train/seg_train", "seg_test/seg_test")]
)
def test_splits_under_other_names_are_no_classes(splits, tmp_path):
    fill(tmp_path, *(f"{split}/{name}" for split in splits for name in ("cat", "dog")))
    said = (
        f"'{tmp_path}' is one level too high: its folders 'seg_test', 'seg_train' have no images "
        "of their own, and each has the folders 'cat', 'dog'. Call the folders train, validation "
        f"and test, or write one of them, '{tmp_path / splits[0]}' for instance, in place of "
    )
    for read in (read_folder, lambda root: labelled_images(root, None, None, None)):
        with pytest.raises(ValueError, match=re.escape(said)):
            read(tmp_path)


@pytest.mark.parametrize("names", [("tested", "untested"), ("trained", "untrained")])
def test_classes_may_have_the_name_of_a_split_within_theirs(names, tmp_path):
    fill(tmp_path, *(f"{name}/{part}" for name in names for part in ("a", "b")))
    assert read_folder(tmp_path).classes == list(names)


@pytest.mark.parametrize("names", [("train2017", "val2017"), ("X_train", "X_test")])
def test_names_of_splits_may_have_more_to_them(names, tmp_path):
    fill(tmp_path, *(f"{name}/{part}" for name in names for part in ("a", "b")))
    with pytest.raises(ValueError, match="is one level too high"):
        read_folder(tmp_path)


def test_tasks_are_no_classes(tmp_path):
    tasks = [f"{task}/{split}" for task in ("pets", "cars") for split in ("train", "val")]
    fill(tmp_path, *(f"{split}/{name}" for split in tasks for name in ("a", "b")))
    with pytest.raises(ValueError, match=r"If they are tasks, write one of them, '.*pets' for"):
        read_folder(tmp_path)


def test_classes_that_are_all_sorted_alike_are_classes_and_warned_of(tmp_path):
    folders = [f"{name}/{year}" for name in ("cat", "dog") for year in ("2023", "2024")]
    folder = read_folder(fill(tmp_path, *folders))
    assert folder.classes == ["cat", "dog"]
    assert folder.notes == [
        f"'{tmp_path}' may be one level too high: its folders 'cat', 'dog' have no images of their "
        "own, and each has the folders '2023', '2024'. If these are the classes, write "
        f"'{tmp_path / 'dog'}' in place of '{tmp_path}'."
    ]


@pytest.mark.parametrize(
    "folders",
    [
        ["train_a/cat", "train_a/dog", "train_b/cat"],  # not the same folders
        ["train_a/cat", "train_b/cat"],  # one alone
        ["train_a", "train_b", "train_a/cat", "train_a/dog", "train_b/cat", "train_b/dog"],
    ],
)
def test_class_folders_of_other_forms_are_taken_as_they_are(folders, tmp_path):
    folder = read_folder(fill(tmp_path, *folders))
    assert folder.classes == ["train_a", "train_b"]
    assert folder.notes == []
