"""Summarizes how a pack stores its parameters: packed, shared, per task, or in a head."""

import math
from collections.abc import Mapping

import keras

from packnet_tf.packing.layers import Packed, own_variables, plain_class
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.reporting.tables import text_table

KINDS = ("packed", "shared", "per task", "head")


def summarize(
    trunk: PackedTrunk, policy: Policy, heads: Mapping[str, int], overlays: Mapping[str, int]
) -> str:
    """Lays out the table that `PackNet.summary` prints.

    Args:
        trunk: the store of a pack.
        policy: the pack's policy.
        heads: dict from task name to the number of parameters in its head.
        overlays: the same for the overlays of tasks that have one.

    Returns:
        A table with a row for every layer that has parameters (nested layers and heads included),
        and each kind's share of all parameters.
    """
    kinds = (*KINDS, "overlay") if overlays else KINDS
    rows, sums = [], dict.fromkeys(kinds, 0)

    def add(name: str, class_name: str, counts: Mapping[str, int]) -> None:
        if not any(counts.values()):
            return
        for kind, count in counts.items():
            sums[kind] += count
        cells = [f"{counts[kind]:,}" if counts.get(kind) else "" for kind in kinds]
        rows.append([name, class_name, *cells])

    kind_of = {
        id(variable): "shared" if shared else "per task"
        for (_, variable), shared in zip(own_weights(trunk), policy.shared(trunk), strict=True)
    }
    for path, layer in trunk.paths():
        add(path, plain_class(layer).__name__, _counts(layer, kind_of))
    for task, count in heads.items():
        add(f"head of '{task}'", "", {"head": count})
    for task, count in overlays.items():
        add(f"overlay of '{task}'", "", {"overlay": count})

    total = sum(sums.values())
    rows.append(["all", f"{total:,}", *(f"{sums[kind]:,}" for kind in kinds)])
    shares = [f"{sums[kind] / total:.2%}" for kind in kinds]
    table = text_table(["layer", "class", *kinds], [*rows, ["share", "", *shares]], total=2)
    return (
        f"{table}\n"
        "packed: each weight is owned by one task, or free. shared: trained with the first task, "
        "then frozen.\n"
        f"per task: every task has these for itself, {sums['per task']:,} parameters, beside its "
        "head."
        + ("\noverlay: values that one task alone has for packed weights." if overlays else "")
    )


def _counts(layer: keras.Layer, kind_of: Mapping[int, str]) -> dict[str, int]:
    packed = layer.packed_weights.values() if isinstance(layer, Packed) else ()
    counts = {"packed": sum(math.prod(weight.packed.shape) for weight in packed)}
    for variable in own_variables(layer):
        kind = kind_of[id(variable)]
        counts[kind] = counts.get(kind, 0) + math.prod(variable.shape)
    return counts
