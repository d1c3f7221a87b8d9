"""The stem of a trunk: its first layers, which all tasks share."""

from collections.abc import Iterator, Sequence

import keras

from packnet_tf.backend.keras_internals import all_layers, has_graph, operations_before

# The models on the way from the trunk to a layer, each with the layer to follow in it.
Way = Sequence[tuple[keras.Model, keras.Layer]]


def stem_layers(trunk: keras.Model, stem: str | None) -> list[keras.Layer]:
    """Returns the layers up to and including the stem's last one, nested layers included.

    Args:
        trunk: a functional or sequential model, or a copy of one.
        stem: the name of the layer, or its path (`mobilenet/block_12_add`) in a nested model; None
            for a trunk without a stem.

    Raises:
        ValueError: the trunk has no such layer, or several.

    Example:
        >>> [layer.name for layer in stem_layers(trunk, "first")]
        ['features', 'first']
    """
    if stem is None:
        return []
    found = []
    for model, layer in _way(trunk, stem):
        found += [x for x in operations_before(model, layer) if isinstance(x, keras.Layer)]
    return [part for whole in [*found, layer] for part in all_layers(whole)]


def _way(trunk: keras.Model, stem: str) -> Way:
    ways = dict(_ways(trunk, "", ()))
    matching = {path: way for path, way in ways.items() if stem in (path, way[-1][1].name)}
    if len(matching) > 1 and stem in matching:
        matching = {stem: matching[stem]}
    if len(matching) == 1:
        [way] = matching.values()
        return way
    if matching:
        raise ValueError(
            f"stem='{stem}' names {len(matching)} layers of trunk '{trunk.name}'. Write the path "
            f"of one, stem='{next(iter(matching))}' for instance."
        )
    middle = [path for path, way in ways.items() if way[-1][1].weights]
    raise ValueError(
        f"stem={stem!r} is no layer of trunk '{trunk.name}'. Write the name of the last layer that "
        f"all tasks share, stem='{middle[len(middle) // 2]}' for instance."
    )


def _ways(model: keras.Model, prefix: str, way: tuple) -> Iterator[tuple[str, tuple]]:
    """Yields the path of every layer of a model's graph, and the way to it."""
    for layer in model.layers:
        further = (*way, (model, layer))
        yield f"{prefix}{layer.name}", further
        if isinstance(layer, keras.Model) and has_graph(layer):
            yield from _ways(layer, f"{prefix}{layer.name}/", further)
