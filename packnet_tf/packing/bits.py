"""Small whole numbers packed into as few bits as they need (owners, claims)."""

import numpy as np


def pack(numbers: np.ndarray) -> np.ndarray:
    """Packs uint8 numbers into bit planes.

    Only the span of the numbers counts: three tasks and free weights (0 to 3) take 2 bits a
    number, four tasks with nothing free (1 to 4) as well, and a single owner none.

    Args:
        numbers: uint8 array of any shape.

    Returns:
        1-D uint8 array: the smallest number, then one plane of `ceil(size / 8)` bytes per bit.

    Example:
        >>> pack(np.array([1, 2, 1, 2], np.uint8))
        array([ 1, 80], dtype=uint8)
    """
    flat = np.asarray(numbers, np.uint8).reshape(-1)
    lowest = flat.min(initial=255) if flat.size else np.uint8(0)
    codes = flat - lowest
    planes = int(codes.max(initial=0)).bit_length()
    packed = [np.packbits(codes & np.uint8(1 << plane)) for plane in range(planes)]
    return np.concatenate([np.array([lowest], np.uint8), *packed])


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Reverses `pack`.

    Args:
        packed: what `pack` returned.
        shape: shape of the numbers.

    Raises:
        ValueError: the length does not fit the shape.
    """
    packed = np.asarray(packed, np.uint8).reshape(-1)
    size = int(np.prod(shape, dtype=np.int64))
    plane_bytes = -(-size // 8)
    planes, rest = divmod(packed.size - 1, plane_bytes) if plane_bytes else (0, 0)
    if packed.size == 0 or rest or planes > 8:
        raise ValueError(
            f"{packed.size} bytes are not bit planes of {size} numbers (shape {tuple(shape)})"
        )
    numbers = np.full(size, packed[0], np.uint8)
    for plane in range(planes):
        start = 1 + plane * plane_bytes
        numbers += np.unpackbits(packed[start : start + plane_bytes], count=size) << plane
    return numbers.reshape(shape)
