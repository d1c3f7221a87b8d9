"""Builds networks that files describe, and refuses those that are larger than the file's weights.

A configuration of a hundred characters can ask for a layer of a terabyte. So Keras first creates
the variables without values, and they get them once their shapes are known to fit.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import keras
import numpy as np

from packnet_tf.backend.keras_internals import drop_waiting, give_values, waiting_variables

SMALL = 2**24  # bytes that a network may always have: other checks say what does not fit there
_LIMIT: contextvars.ContextVar[tuple[int, str] | None] = contextvars.ContextVar(
    "limit", default=None
)

Built = TypeVar("Built")


@contextlib.contextmanager
def at_most(size: int, what: str) -> Iterator[None]:
    """Limits the networks that `limited` builds in the block.

    Args:
        size: how many bytes of weights the file has for them.
        what: their description, for the message.
    """
    token = _LIMIT.set((size, what))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def limited(build: Callable[[], Built]) -> Built:
    """Builds layers within the limit of `at_most`; without a limit, it only calls `build`.

    Args:
        build: returns the layers, or what they return. It is called a second time if a layer
            creates variables from arrays, which no configuration holds.

    Raises:
        ValueError: their variables take more memory than the limit. They then have no values.
    """
    found = _LIMIT.get()
    if found is None:
        return build()
    limit, what = found
    scope = keras.StatelessScope(initialize_variables=False)
    outer = drop_waiting()
    try:
        with scope:
            built = build()
        size = sum(map(_bytes_of, waiting_variables()))
        if size > max(SMALL, limit):
            raise ValueError(
                f"{what} needs weights of {size:,} bytes, and the file has {limit:,}. Restore the "
                "pack from a backup."
            )
    except ValueError as error:
        drop_waiting()
        if "stateless scope" not in str(error):
            raise
        return build()
    except BaseException:
        drop_waiting()
        raise
    give_values(scope, outer)
    return built


def _bytes_of(variable: keras.Variable) -> int:
    return math.prod(variable.shape) * np.dtype(variable.dtype).itemsize
