"""The private attributes of Keras that the library uses.

All of them are in this file. Check it against each new version of Keras.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np
from keras.src.backend.common import global_state

from packnet_tf.backend.types import Tensor, Tensors

if TYPE_CHECKING:
    from keras.src.ops.node import Node
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

SMALL = 2**24  # bytes that a network may always have: other checks say what does not fit there
_WAITING = "uninitialized_variables"
_LIMIT: contextvars.ContextVar[tuple[int, str] | None] = contextvars.ContextVar(
    "limit", default=None
)

Built = TypeVar("Built")


def all_layers(layer: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Returns a layer and all layers nested in it, outer layers first.

    The order depends on the structure alone.

    Args:
        layer: a layer or model.
        include_self: whether to include `layer` itself, as the first.
    """
    return list(layer._flatten_layers(include_self=include_self))


def inner_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers directly within a layer or model.

    Args:
        layer: a layer or model.
    """
    return layer.layers if isinstance(layer, keras.Model) else layer._layers


def direct_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Returns a layer's variables, without those of nested layers.

    Args:
        layer: a layer or model.
    """
    return [*trained_variables(layer), *fixed_variables(layer)]


def trained_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Returns those of `direct_variables` created as trainable: the layer's own list.

    Args:
        layer: a layer or model.
    """
    return layer._trainable_variables


def fixed_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Returns those of `direct_variables` created as non-trainable: the layer's own list.

    Args:
        layer: a layer or model.
    """
    return layer._non_trainable_variables


def untrack(layer: keras.Layer, variable: keras.Variable) -> None:
    """Removes a variable from a layer's lists of variables.

    Args:
        layer: the layer that tracks it.
        variable: the variable, compared by identity.
    """
    layer._untrack_variable(variable)


def unlock(layer: keras.Layer) -> None:
    """Allows a built layer to track new variables and new attributes that hold variables.

    Args:
        layer: a built layer.
    """
    layer._tracker.unlock()


def lock(layer: keras.Layer) -> None:
    """Forbids a built layer to track new variables again; see `unlock`.

    Args:
        layer: a built layer.
    """
    layer._tracker.lock()


def set_input_dtype(layer: keras.layers.InputLayer, dtype: str) -> None:
    """Changes the dtype to which the input of a model is converted.

    Args:
        layer: the input's layer.
        dtype: the new dtype.
    """
    layer._dtype = layer.output._dtype = dtype


def keep_remat(source: keras.Layer, target: keras.Layer) -> None:
    """Makes a copy compute its activations again wherever its source does, see `keras.RematScope`.

    Args:
        source: a layer.
        target: a copy of it; configurations do not say this.
    """
    target._remat_mode = source._remat_mode


def has_graph(model: keras.Model) -> bool:
    """Returns whether a model is Functional or Sequential, or of a subclass of these.

    Args:
        model: any Keras model.
    """
    names = [base.__name__ for base in type(model).__mro__]
    return "Sequential" in names or "Functional" in names


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the operation that produces a symbolic tensor.

    Args:
        tensor: a tensor of a graph, of any shape and dtype; it may be an input of the graph.
    """
    return tensor._keras_history.operation  # type: ignore[attr-defined]  # set by graphs


def operations_before(model: keras.Model, operation: keras.Operation) -> list[keras.Operation]:
    """Returns the operations of a model's graph on whose outputs one of them depends.

    Args:
        model: a functional model, or a sequential one that is built.
        operation: a layer or another operation of the graph.

    Returns:
        The operations, without `operation` unless it depends on itself, in no useful order.
    """
    before, every = [], _nodes_before(model.outputs)
    for node in every:
        if node.operation is operation:
            before += [other.operation for other in _nodes_before(node.input_tensors)]
    return list({id(found): found for found in before}.values())


def output_within(model: keras.Model, layer: keras.Layer) -> Any:
    """Returns what a layer gives within a model's graph; a nested model has an output of its own.

    Args:
        model: a functional model, or a sequential one that is built.
        layer: a layer of it; of one that is called several times, the last call counts.
    """
    for node in _nodes_before(model.outputs):
        if node.operation is layer:
            outputs = node.output_tensors
            return outputs[0] if len(outputs) == 1 else outputs
    return layer.output


def run_operations(
    model: keras.Model, inputs: Tensors, record: Callable[[Tensor], None]
) -> Tensors:
    """Computes a model's outputs in inference mode, operation by operation, also of nested models.

    Args:
        model: a functional or sequential model that is built.
        inputs: tensors in the structure of `model.input`.
        record: called with each tensor that an operation gives, in the order of computation.

    Returns:
        The outputs, in the structure of `model.output`.
    """

    def applied(operation: keras.Operation) -> Callable[..., Tensors]:
        def apply(*args: Any, **kwargs: Any) -> Tensors:
            if isinstance(operation, keras.Model) and has_graph(operation):
                return run_operations(operation, args[0], record)
            if "training" in getattr(operation, "_call_context_args", ()):
                kwargs["training"] = False  # random layers for images train unless they are told
            outputs = operation(*args, **kwargs)
            for tensor in keras.tree.flatten(outputs):
                record(tensor)
            return outputs

        return apply

    graph: Any = getattr(model, "_functional", model)  # of a Sequential model
    return graph._run_through_graph(inputs, operation_fn=applied)


def _nodes_before(tensors: Iterable[keras.KerasTensor]) -> list["Node"]:
    """Returns the nodes of a graph that symbolic tensors are computed by."""
    found: dict[int, Node] = {}
    waiting = list(tensors)
    while waiting:
        history = waiting.pop()._keras_history  # type: ignore[attr-defined]  # set by graphs
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in found:
            found[id(node)] = node
            waiting += node.input_tensors
    return list(found.values())


def steps_counter(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Returns the variable that counts an optimizer's steps, accumulation steps included.

    Args:
        optimizer: an optimizer; not a wrapper such as `LossScaleOptimizer`.
    """
    return optimizer._iterations


def optimized_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Returns the variables that a built optimizer trains.

    Args:
        optimizer: an optimizer; not a wrapper such as `LossScaleOptimizer`.
    """
    return optimizer._trainable_variables


def squared_gradients(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Returns the moving averages of squared gradients that Adam and its relatives keep.

    Args:
        optimizer: a built optimizer; not a wrapper such as `LossScaleOptimizer`.

    Returns:
        One variable for each of `optimized_variables`; none for other optimizers.
    """
    return getattr(optimizer, "_velocities", [])


def py_dataset_adapter(data: keras.utils.PyDataset) -> "PyDatasetAdapter":
    """Returns what `fit` iterates over a `PyDataset` with, workers included.

    Args:
        data: the data; their order is kept.
    """
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    return PyDatasetAdapter(data)


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
    # A short configuration can ask for a terabyte. Here, Keras creates variables without values.
    scope = keras.StatelessScope(initialize_variables=False)
    outer = _drop_waiting()
    try:
        with scope:
            built = build()
        size = sum(map(_bytes_of, _waiting()))
        if size > max(SMALL, limit):
            raise ValueError(
                f"{what} needs weights of {size:,} bytes, and the file has {limit:,}. Restore the "
                "pack from a backup."
            )
    except ValueError as error:
        _drop_waiting()
        if "stateless scope" not in str(error):
            raise
        return build()
    except BaseException:
        _drop_waiting()
        raise
    _give_values(scope, outer)
    return built


def _bytes_of(variable: keras.Variable) -> int:
    return math.prod(variable.shape) * np.dtype(variable.dtype).itemsize


def _waiting() -> list[keras.Variable]:
    """Returns the variables that were created in a `keras.StatelessScope` and have no values."""
    return global_state.get_global_attribute(_WAITING) or []


def _drop_waiting() -> list[keras.Variable]:
    dropped = _waiting()
    global_state.set_global_attribute(_WAITING, [])
    return dropped


def _give_values(scope: keras.StatelessScope, others: list[keras.Variable]) -> None:
    """Gives waiting variables the values that they would have without the scope; `others` wait."""
    for variable in _drop_waiting():
        variable._deferred_initialize()
        assigned = scope.get_current_value(variable)
        if assigned is not None:
            variable.assign(assigned)
    global_state.set_global_attribute(_WAITING, others)
