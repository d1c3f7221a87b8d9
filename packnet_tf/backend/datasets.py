"""Dataset lengths."""

import math

import keras

from packnet_tf.backend.types import AnyData


def known_batches(data: AnyData) -> float | None:
    """Returns the number of batches: infinity if the dataset never ends, None if unknown."""
    if isinstance(data, keras.utils.PyDataset):
        return math.inf if data.num_batches is None else data.num_batches
    try:
        count = data.cardinality  # a property of distributed datasets, a method of others
        count = int(count() if callable(count) else count)  # -1 is infinite, -2 unknown
    except (AttributeError, ValueError):
        return None
    return {-1: math.inf, -2: None}.get(count, count)


def check_ends(data: AnyData, what: str) -> AnyData:
    """Refuses a dataset that never ends, where all of the data are needed.

    Args:
        data: training data in any form.
        what: the subject of the error message, "The training data" for instance.

    Returns:
        The data.

    Raises:
        ValueError: the dataset never ends.
    """
    if known_batches(data) == math.inf:
        raise ValueError(
            f"{what} never end: the dataset repeats without limit, and all of its batches are "
            "needed. Leave out .repeat(), or write .repeat().take(batches)."
        )
    return data
