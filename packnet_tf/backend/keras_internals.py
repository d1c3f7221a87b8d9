"""What the library needs of Keras that Keras keeps to itself: all of it is here.

A new version of Keras is checked against this file.
"""

import keras


def all_layers(layer: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """A layer and those within it, from outside in; the order is that of the structure.

    Args:
        layer: a layer or model.
        include_self: whether it comes first itself.
    """
    return list(layer._flatten_layers(include_self=include_self))


def inner_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly within a layer or model.

    Args:
        layer: a layer or model.
    """
    return layer.layers if isinstance(layer, keras.Model) else layer._layers


def direct_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer itself, without those of layers within it.

    Args:
        layer: a layer or model.
    """
    return [*trained_variables(layer), *fixed_variables(layer)]


def trained_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Those of `direct_variables` that were made to be trained; the layer's own list.

    Args:
        layer: a layer or model.
    """
    return layer._trainable_variables


def fixed_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Those of `direct_variables` that were not made to be trained.

    Args:
        layer: a layer or model.
    """
    return layer._non_trainable_variables


def untrack(layer: keras.Layer, variable: keras.Variable) -> None:
    """Takes a variable out of the lists of a layer.

    Args:
        layer: that has it.
        variable: the variable itself, not one of equal value.
    """
    layer._untrack_variable(variable)


def unlock(layer: keras.Layer) -> None:
    """Lets a built layer take new variables, and attributes that hold some.

    Args:
        layer: a built layer.
    """
    layer._tracker.unlock()


def lock(layer: keras.Layer) -> None:
    """Has a layer refuse them again.

    Args:
        layer: a built layer.
    """
    layer._tracker.lock()


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation of a graph that gives a symbolic tensor.

    Args:
        tensor: of any shape and dtype, an input of the graph or what an operation gave.
    """
    return tensor._keras_history.operation  # type: ignore[attr-defined]  # graphs give it one


def steps_counter(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The variable in which an optimizer counts its steps, those that only accumulate included.

    Args:
        optimizer: any; not one that holds another.
    """
    return optimizer._iterations


def optimized_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that a built optimizer trains.

    Args:
        optimizer: any; not one that holds another.
    """
    return optimizer._trainable_variables
