"""Picture files of every kind of pixel become bytes, or are refused."""

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from packnet_tf.apps.images.pixels import read_image, read_whole_image

LEVELS = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", LEVELS.astype(np.uint8)),
        ("sixteen_bits.png", (LEVELS * 257).astype(np.uint16)),
        ("sixteen_bits.tif", (LEVELS * 257).astype(np.uint16)),
        ("integers.tif", LEVELS.astype(np.int32)),
        ("floats.tif", LEVELS.astype(np.float32)),
    ],
)
def test_every_grey_level_is_kept(name, pixels, channels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / name)
    found = read_image(tmp_path / name, 16, 16, channels)
    assert np.array_equal(found, np.repeat(LEVELS[..., None], channels, axis=-1))


def test_colours_that_pillow_makes_no_grey_of_are_grey_too(tmp_path):
    Image.new("LAB", (16, 16), (128, 100, 160)).save(tmp_path / "p.tif")
    colours = read_image(tmp_path / "p.tif", 16, 16, 3)
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    assert np.array_equal(read_image(tmp_path / "p.tif", 16, 16, 1)[..., 0], expected)


def test_portable_greymaps_of_sixteen_bits_too(tmp_path):
    content = b"P5\n16 16\n65535\n" + (LEVELS * 257).astype(">u2").tobytes()
    (tmp_path / "map.pgm").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "map.pgm", 16, 16, 1)[..., 0], LEVELS)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (LEVELS.astype(np.int32) * 300, "0 to 76500"),
        (LEVELS.astype(np.int32) - 1, "-1 to 254"),
        (LEVELS.astype(np.float32) / 255, "0 to 1"),
    ],
)
def test_pixels_of_unknown_meaning_are_refused(pixels, said, tmp_path):
    path = tmp_path / "wide.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(OSError, match="is not a readable image") as error:
        read_image(path, 16, 16, 3)
    assert str(error.value) == (
        f"'{path}' is not a readable image: its pixels are {said}, of 32 bits; expected 8 or 16 "
        "bits a channel"
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_whatever_else_its_exif_data_say(orientation, tmp_path):
    """As Pillow turns a sound one; 0xA005 is an offset, here of a type that it cannot be."""
    pixels = np.arange(1800, dtype=np.uint8).reshape(20, 30, 3)
    entries = [struct.pack("<HHLHH", 0x112, 3, 1, orientation, 0)]
    for name, more in (("sound", []), ("odd", [struct.pack("<HHL", 0xA005, 7, 4) + bytes(4)])):
        ifd = struct.pack("<H", len(entries + more)) + b"".join(entries + more) + bytes(4)
        exif = b"Exif\0\0II*\0\x08\0\0\0" + ifd
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", exif=exif)
    with Image.open(tmp_path / "sound.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_whole_image(tmp_path / "sound.jpg", 3), expected)
    assert np.array_equal(read_whole_image(tmp_path / "odd.jpg", 3), expected)


def test_exif_data_that_nobody_can_read_leave_the_picture_as_it_is(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cut.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    Image.fromarray(pixels).save(tmp_path / "no.jpg", exif=b"Exif\0\0nothing of the sort")
    assert read_whole_image(tmp_path / "cut.jpg", 3).shape == (4, 6, 3)
    assert read_whole_image(tmp_path / "no.jpg", 3).shape == (4, 6, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_file_of_very_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    row = b"\0" + b"\0" * (12_000 // 8)
    header = struct.pack(">2I5B", 12_000, 12_000, 1, 0, 0, 0, 0)  # one bit a pixel
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(row * 12_000)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )
    )
    began = time.process_time()
    with pytest.raises(OSError, match=r"it has 144,000,000 pixels in .* Make it smaller") as error:
        read_image(path, 8, 8, 3)
    assert f"'{path}'" in str(error.value)
    assert time.process_time() - began < 0.5
