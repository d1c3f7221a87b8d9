"""Reads image files as arrays, with the same decoding and resizing in training and on the device.

Uses Pillow and NumPy only, so that `packnet predict` needs no Keras.
"""

import math
import os
from collections.abc import Callable

import numpy as np

from packnet_tf.apps import cli
from packnet_tf.backend.text import quoted

PIXELS_PER_BYTE = 20  # of the largest pictures


def read_image(path, height: int, width: int, channels: int) -> np.ndarray:
    """Reads an image file.

    The image is turned upright, converted to RGB (or grey), and resized to the given size
    regardless of its proportions, by Pillow's bilinear filter, which averages when it shrinks.

    Args:
        path: an image file.
        height, width: size in pixels.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        OSError: the file is missing or is not a readable image.
    """
    return _read(path, channels, lambda size: (width, height)).reshape(height, width, channels)


def read_proportional_image(path, shorter_side: int, channels: int) -> np.ndarray:
    """Reads an image file and resizes it, keeping proportions.

    Args:
        path: an image file.
        shorter_side: the smaller of height and width after resizing, in pixels.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        OSError: the file is missing or is not a readable image.
    """
    pixels = _read(path, channels, lambda size: _with_shorter_side(size, shorter_side))
    return pixels.reshape(*pixels.shape[:2], channels)


def read_whole_image(path, channels: int) -> np.ndarray:
    """Reads an image file at its own size, upright, as RGB or grey.

    Args:
        path: an image file.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        OSError: the file is missing or is not a readable image.
    """
    pixels = _read(path, channels, lambda size: size)
    return pixels.reshape(*pixels.shape[:2], channels)


def _with_shorter_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    width, height = (max(side, round(side * part / min(size))) for part in size)
    return width, height


def _read(path, channels: int, resized: Callable) -> np.ndarray:
    """Decodes a file; `resized` maps its (width, height) to those of the result."""
    cli.need("PIL", "pillow")
    from PIL import Image

    try:
        with Image.open(path) as image:
            _refuse_bomb(image.size, os.path.getsize(path), Image.MAX_IMAGE_PIXELS)
            upright = _in_bytes(_upright(image), image.format)
            if upright.mode == "LAB":
                upright = upright.convert("RGB")  # Pillow makes no grey of it
            image = upright.convert("RGB" if channels == 3 else "L")
            size = resized(image.size)
            if size != image.size:
                image = image.resize(size, Image.Resampling.BILINEAR)
            return np.asarray(image, np.uint8)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files raise SyntaxError, ValueError, struct.error, ...
        raise OSError(f"'{path}' is not a readable image: {quoted(error)}") from error


def _refuse_bomb(size: tuple[int, int], stored: int, most: int | None) -> None:
    """Refuses a picture above Pillow's limit whose file is too small for so many pixels.

    Pillow itself only warns up to twice its limit. Photographs take a byte for every few pixels.

    Raises:
        ValueError: the message says how many pixels the picture has.
    """
    pixels = math.prod(size)
    if most is not None and pixels > max(most, PIXELS_PER_BYTE * stored):
        raise ValueError(
            f"it has {pixels:,} pixels in {stored:,} bytes, and pictures of more than {most:,} "
            f"need a byte for {PIXELS_PER_BYTE}. Make it smaller, or leave it out."
        )


def _upright(image):
    """Rotates an image by the orientation in its EXIF data, and ignores all other tags.

    Cameras and editors write invalid tags into valid photographs. Pillow's `exif_transpose`
    rewrites all tags, and fails on these.
    """
    from PIL import ExifTags, Image

    turn = Image.Transpose
    transposes = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    image.load()  # some formats rotate the image here, and drop the tag
    try:
        method = transposes.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # unreadable EXIF data raise anything; the pixels are valid
        method = None
    return image if method is None else image.transpose(method)


def _in_bytes(image, kind: str):
    """Scales an image to 8 bits per channel, where Pillow would clip it.

    Raises:
        ValueError: the range of its pixel values is unknown.
    """
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PPM"):
        return Image.fromarray(np.rint(np.asarray(image, np.float32) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        low, high = image.getextrema()
        if low < 0 or high > 255 or 0 < high <= 1:
            raise ValueError(
                f"its pixels are {low:g} to {high:g}, of 32 bits; expected 8 or 16 bits a channel"
            )
    return image
