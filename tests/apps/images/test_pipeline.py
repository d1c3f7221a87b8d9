"""Images as tf.data: the same pixels as on the device, shuffled and augmented by the seed."""

import os

import numpy as np
import pytest
from PIL import Image

from helpers.image_folders import write_task
from packnet_tf.apps.images import pipeline
from packnet_tf.apps.images.folders import read_folder
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.images.pixels import read_image, read_proportional_image


@pytest.fixture
def files(tmp_path):
    return read_folder(write_task(tmp_path / "task")).files


def collect(data):
    batches = list(data.as_numpy_iterator())
    return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])


def test_evaluation_gives_every_image_in_order_as_read_image_does(files):
    images, labels = collect(Pipeline((16, 16, 3), 5, 0).evaluation(files["test"]))
    assert images.dtype == np.float32
    assert labels.tolist() == [label for _, label in files["test"]]
    for image, (path, _) in zip(images, files["test"], strict=True):
        assert np.array_equal(image, read_image(path, 16, 16, 3))


@pytest.mark.parametrize("cache", [True, False])
def test_training_shuffles_and_gives_every_image_each_epoch(cache, files):
    data = Pipeline((16, 16, 3), 7, 1, cache).training(files["train"], False, False)
    first, second = collect(data), collect(data)
    expected = sorted(read_image(path, 16, 16, 3).sum() for path, _ in files["train"])
    for images, labels in (first, second):
        assert sorted(images.sum((1, 2, 3)).astype(int)) == expected
        assert sorted(labels) == sorted(label for _, label in files["train"])
    assert not np.array_equal(first[0], second[0])


def test_augmentation_moves_and_mirrors_and_the_seed_decides(files):
    def epoch(seed, **how):
        return collect(Pipeline((16, 16, 3), 7, seed).training(files["train"], **how))[0]

    plain = {image.tobytes() for image in epoch(0, flip=False, crop=False)}
    moved = epoch(0, flip=False, crop=True)
    mirrored = epoch(0, flip=True, crop=False)
    assert {image.tobytes() for image in moved} != plain
    for image in mirrored:
        assert {image.tobytes(), image[:, ::-1].tobytes()} & plain
    assert any(image.tobytes() not in plain for image in mirrored)
    assert np.array_equal(epoch(3, flip=True, crop=True), epoch(3, flip=True, crop=True))


def test_pixels_come_in_the_range_asked_for(files):
    whole, _ = collect(Pipeline((16, 16, 3), 5, 0).evaluation(files["test"]))
    unit, _ = collect(Pipeline((16, 16, 3), 5, 0, True, (-1.0, 1.0)).evaluation(files["test"]))
    np.testing.assert_allclose(unit, whole / 127.5 - 1, atol=1e-6)


def test_images_are_resized_and_grey_ones_become_rgb_or_stay(tmp_path):
    Image.fromarray(np.full((9, 5), 200, np.uint8)).save(tmp_path / "grey.png")
    assert np.array_equal(
        read_image(tmp_path / "grey.png", 4, 6, 3), np.full((4, 6, 3), 200, np.uint8)
    )
    assert read_image(tmp_path / "grey.png", 4, 6, 1).shape == (4, 6, 1)


def test_missing_and_truncated_images_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png", 4, 4, 3)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="is not a readable image"):
        read_image(tmp_path / "cut.png", 4, 4, 3)


def test_names_of_files_need_not_be_utf_8(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn.png")
    try:
        Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).save(path)
    except OSError:
        pytest.skip("this file system takes text only")
    for shorter_side in (None, 4):
        pipeline = Pipeline((4, 4, 3), 5, 0, shorter_side=shorter_side)
        images, labels = collect(pipeline.evaluation([(path, 2)]))
        assert images.shape == (1, 4, 4, 3)
        assert (images == 90).all()
        assert labels.tolist() == [2]


def test_with_a_shorter_side_proportions_are_kept_and_the_centre_is_evaluated(tmp_path):
    # Columns count up: the centre of 40 x 20 pixels, resized to 20 x 10 and cut to 8 x 8.
    wide = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None] * 6, (20, 40, 3))
    Image.fromarray(wide.copy()).save(tmp_path / "wide.png")
    resized = read_proportional_image(tmp_path / "wide.png", 10, 3)
    assert resized.shape == (10, 20, 3)
    assert read_proportional_image(tmp_path / "wide.png", 20, 1).shape == (20, 40, 1)
    pipeline = Pipeline((8, 8, 3), 2, 0, shorter_side=10)
    images, labels = collect(pipeline.evaluation([(str(tmp_path / "wide.png"), 1)]))
    assert labels.tolist() == [1]
    assert np.array_equal(images[0], resized[1:9, 6:14])


def test_training_with_a_shorter_side_sees_random_parts_that_the_seed_decides(tmp_path):
    left_and_right = np.zeros((32, 48, 3), np.uint8)
    left_and_right[:, 24:] = 240
    files = []
    for number in range(24):
        Image.fromarray(left_and_right).save(tmp_path / f"{number}.png")
        files.append((str(tmp_path / f"{number}.png"), 0))

    def epoch(seed, **how):
        pipeline = Pipeline((16, 16, 3), 7, seed, shorter_side=32)
        return collect(pipeline.training(files, **how))[0]

    parts = epoch(0, flip=False, crop=True)
    assert parts.shape == (24, 16, 16, 3)
    means = parts.mean((1, 2, 3))
    assert means.min() < 60  # nearly all of the left
    assert means.max() > 180  # nearly all of the right
    assert parts.max() <= 240
    assert np.array_equal(parts, epoch(0, flip=False, crop=True))
    centres = epoch(0, flip=False, crop=False)
    assert all(np.array_equal(image, centres[0]) for image in centres)
    with pytest.raises(ValueError) as error:
        Pipeline((16, 24, 3), 7, 0, shorter_side=20)
    assert str(error.value) == (
        "Images whose shorter side is 20 pixels are too small for a network that takes 16 x 24. "
        "Write a shorter_side of at least 24."
    )


def test_images_are_kept_while_half_of_the_memory_lasts(files, monkeypatch):
    count = len(files["train"])
    size = count * 16 * 16 * 3
    monkeypatch.setattr(pipeline, "available_memory", lambda: 2 * size)
    data = Pipeline((16, 16, 3), 7, 1)
    first, second = (data.images(files["train"]) for _ in range(2))
    assert data.uncached == count  # the second one
    for found in (first, second):
        assert len(list(found)) == count
    for cache, uncached in ((True, 0), (False, 0)):
        data = Pipeline((16, 16, 3), 7, 1, cache)
        data.images(files["train"] * 10)
        assert data.uncached == uncached
    large = Pipeline((16, 16, 3), 7, 1, shorter_side=160)
    large.images(files["train"])
    assert large.uncached == count
