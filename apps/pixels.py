"""Image files as arrays: the same decoding and resizing in training and on the device.

Pillow and NumPy only, so that `packnet predict` needs nothing else.
"""

import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read_image(path, height: int, width: int, channels: int) -> np.ndarray:
    """Reads an image file.

    The picture is turned upright, converted to RGB (or grey), and resized to the given size
    (Pillow's bilinear filter, which averages when it shrinks); proportions are not kept.

    Args:
        path: an image file.
        height, width: size in pixels.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        OSError: the file is missing or is not a readable image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files raise SyntaxError, ValueError, struct.error, ...
        raise OSError(f"'{path}' is not a readable image: {error}") from error
    return np.asarray(image, np.uint8).reshape(height, width, channels)
