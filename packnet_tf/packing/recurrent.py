"""Computes a recurrent layer's kernels once per sequence.

A cell reads its kernels at every time step. A plain kernel is there; the view of a packed one would
be computed, and for the gradients kept, as often as there are steps.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from packnet_tf.backend.keras_internals import all_layers, lock, unlock
from packnet_tf.backend.types import Tensor
from packnet_tf.packing.fused_view import without_autocast

Views = Mapping[tuple[int, str], Tensor]  # by the layer's id and the kernel's name

_HELD: contextvars.ContextVar[Views | None] = contextvars.ContextVar("held", default=None)


def view_once_per_sequence(layers: Iterable[keras.layers.Layer]) -> None:
    """Makes recurrent layers compute the views of their cells before their first time step.

    Args:
        layers: the layers of a task's view.
    """
    for layer in layers:
        if isinstance(layer, keras.layers.RNN):
            unlock(layer)
            held = _holding(layer, layer.inner_loop)
            layer.inner_loop = held  # type: ignore[method-assign]  # this instance only
            lock(layer)


def held_view(layer: keras.layers.Layer, name: str) -> Tensor | None:
    """Returns the view of a kernel that the recurrent layer around it has computed, if any.

    Like a variable, it is not cast to the layer's compute dtype: gradients of the time steps would
    be added up in that.
    """
    return (_HELD.get() or {}).get((id(layer), name))


def _holding(rnn: keras.layers.RNN, inner_loop: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner_loop)
    def looped(*args: Any, **kwargs: Any) -> Any:
        packed = [part for part in all_layers(rnn) if hasattr(part, "packed_weights")]
        places = [(part, name) for part in packed for name in part.packed_weights]
        views = {
            (id(part), name): without_autocast(functools.partial(getattr, part, name))
            for part, name in places
        }
        with _held(views):
            return inner_loop(*args, **kwargs)

    return looped


@contextlib.contextmanager
def _held(views: Views) -> Iterator[None]:
    token = _HELD.set({**(_HELD.get() or {}), **views})
    try:
        yield
    finally:
        _HELD.reset(token)
