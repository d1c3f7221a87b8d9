"""What datasets say of their own length."""

import math

import keras

from packnet_tf.backend.types import AnyData


def known_batches(data: AnyData) -> float | None:
    """How many batches a dataset has: infinity where it never ends, None where it does not say."""
    if isinstance(data, keras.utils.PyDataset):
        return math.inf if data.num_batches is None else data.num_batches
    try:
        count = data.cardinality  # of distributed datasets it is a property
        count = int(count() if callable(count) else count)  # -1 is infinite, -2 unknown
    except (AttributeError, ValueError):
        return None
    return {-1: math.inf, -2: None}.get(count, count)


def check_ends(data: AnyData, what: str) -> AnyData:
    """Returns data that are gone over as a whole.

    Args:
        data: in any form; of a dataset it is known whether it ends.
        what: it is, for the message.

    Raises:
        ValueError: they never end.
    """
    if known_batches(data) == math.inf:
        raise ValueError(
            f"{what} never end: the dataset is repeated without limit, and all of it is gone over. "
            "Leave out .repeat(), or write .repeat().take(batches)."
        )
    return data
