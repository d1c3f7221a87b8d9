"""Bit-packing of owners and claims, and of the places of an overlay."""

import numpy as np

BITS, GAPS = 0, 1  # the first byte of packed places


def pack(numbers: np.ndarray) -> np.ndarray:
    """Packs uint8 numbers into bit planes.

    The number of bits depends on the range of the numbers: owners 0 to 3 take 2 bits each, owners
    1 to 4 also take 2 bits, and a single owner takes none.

    Args:
        numbers: uint8 array of any shape.

    Returns:
        1-D uint8 array: the smallest number, then `ceil(size / 8)` bytes for every bit plane.

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
    """Unpacks the numbers that `pack` packed.

    Args:
        packed: 1-D uint8 array that `pack` returned.
        shape: shape of the numbers.

    Returns:
        A uint8 array of that shape.

    Raises:
        ValueError: the length does not fit the shape, or the dtype is another one.
    """
    if packed.dtype != np.uint8:
        raise ValueError(f"bit planes are uint8; got {packed.dtype}")
    packed = packed.reshape(-1)
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


def pack_places(mask: np.ndarray) -> np.ndarray:
    """Packs the positions of True values, as one bit for each value or as gaps between them.

    Gaps take less where fewer than about one value in eight is True. A gap is the number of False
    values before a True one, in bytes of 255 and a last byte below that.

    Args:
        mask: bool array of any shape.

    Returns:
        1-D uint8 array, the shorter of both.

    Example:
        >>> pack_places(np.arange(300) == 258)
        array([  1, 255,   3], dtype=uint8)
    """
    flat = np.asarray(mask, bool).reshape(-1)
    gaps = np.diff(np.flatnonzero(flat), prepend=-1) - 1
    lengths = gaps // 255 + 1
    if lengths.sum() < -(-flat.size // 8):
        packed = np.full(1 + lengths.sum(), 255, np.uint8)
        packed[np.cumsum(lengths)] = gaps % 255
        packed[0] = GAPS
        return packed
    return np.concatenate([np.array([BITS], np.uint8), np.packbits(flat)])


def unpack_places(packed: np.ndarray, size: int) -> np.ndarray:
    """Unpacks the positions that `pack_places` packed.

    Args:
        packed: 1-D uint8 array that `pack_places` returned.
        size: number of values in the mask.

    Returns:
        A bool array (size,).

    Raises:
        ValueError: the bytes do not fit the size.
    """
    kind, coded = packed[:1].tolist(), packed[1:]
    if kind == [BITS] and coded.size == -(-size // 8):
        return np.unpackbits(coded, count=size).astype(bool)
    ends = coded < 255
    places = np.cumsum(coded, dtype=np.int64)[ends] + np.arange(np.count_nonzero(ends))
    if kind != [GAPS] or not ends[-1:].all() or places[-1:].max(initial=-1) >= size:
        raise ValueError(f"{packed.size} bytes are not places among {size} weights")
    mask = np.zeros(size, bool)
    mask[places] = True
    return mask
