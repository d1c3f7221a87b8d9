"""`Transaction`: undoes the changes of a verb that does not complete."""

from types import TracebackType
from typing import TYPE_CHECKING

from keras import ops

if TYPE_CHECKING:
    from packnet_tf.tasks.pack import Pack


class Transaction:
    """Restores a pack if its block raises, Ctrl-C included.

    Values are kept by reference where the backend allows it, so a successful block costs little.
    Transactions may be nested. This is a class, not a generator: if an interrupt came at the end
    of the block, a generator would be closed, and its changes undone, at an arbitrary later time.

    Args:
        net: the pack.

    Example:
        >>> with Transaction(net):
        ...     net.prune(0.5)
        ...     net.commit()  # if this is refused, the prune is undone too
    """

    def __init__(self, net: "Pack") -> None:
        self._net = net

    def __enter__(self) -> None:
        net, model = self._net, self._net.open_model
        self._attributes = dict(vars(net))
        self._flags = [] if model is None else model.flags()
        variables = [v for weight in net.state.weights.values() for v in weight.variables]
        variables += net.state.unpacked_variables()
        variables += [] if model is None else model.variables
        # Assignments and in-place updates do not change the tensor kept here. On JAX, whose
        # training steps donate buffers, `ops.copy` copies.
        self._values = [(v, ops.copy(v)) for v in {id(v): v for v in variables}.values()]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            return
        try:
            self._undo()
        except BaseException:  # a second Ctrl-C
            self._undo()
            raise

    def _undo(self) -> None:
        for variable, value in self._values:
            variable.assign(value)
        vars(self._net).update(self._attributes)
        for restore in self._flags:
            restore()
