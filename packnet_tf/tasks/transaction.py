"""All or nothing: interrupted at any moment, a verb leaves a pack as before or as after."""

from types import TracebackType
from typing import TYPE_CHECKING

from keras import ops

if TYPE_CHECKING:
    from packnet_tf.tasks.pack import Pack


class Transaction:
    """Undoes what a verb has changed of a pack where its block raises, Ctrl-C included.

    Values are kept by reference where the backend allows it, so a block that ends well costs
    little. Blocks may be nested. It is a class and not a generator, which an interrupt at the
    last line of the block would close, and so undo, whenever its memory is freed.

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
        # A tensor that is assigned anew, or updated in place, leaves the one kept here alone;
        # JAX, whose training steps overwrite, gets true copies.
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
