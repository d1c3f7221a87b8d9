"""Resolves `reuse` to the tasks whose weights a new task sees."""

from collections.abc import Iterable, Sequence

from packnet_tf.backend.text import listed


def seen_numbers(
    reuse: str | Sequence[str],
    tasks: Sequence[str],
    overlaid: Sequence[str] = (),
    base: str | None = None,
) -> tuple[int, ...]:
    """Returns the numbers of the tasks whose weights a new task sees.

    Args:
        reuse: "all", "none", a list of names of earlier tasks, or "auto": the base alone if there
            is one, else all.
        tasks: names of the earlier tasks that own weights, in the order they were packed.
        overlaid: names of the other earlier tasks, which no task sees.
        base: name of the adopted task, if there is one.

    Returns:
        Ascending 1-based numbers; the last is that of a new task that owns weights.

    Raises:
        ValueError: `reuse` is none of these.

    Example:
        >>> seen_numbers(["base"], ["base", "birds", "cars"])
        (1, 4)
    """
    named = {"all": tasks, "none": (), "auto": tasks if base is None else (base,)}
    names = named.get(reuse) if isinstance(reuse, str) else reuse
    if not isinstance(names, Iterable):
        hint = f"; for one task write reuse=[{reuse!r}]" if reuse in tasks else ""
        raise ValueError(
            f'reuse={reuse!r} is not "all", "none", "auto" or a list of names of earlier '
            f"tasks{hint}."
        )
    for name in names:
        if name in overlaid:
            raise ValueError(
                f"reuse names {name!r}, which owns no weights: its overlay is its own, and other "
                f"tasks do not see it. Leave {name!r} out."
            )
        if name not in tasks:
            known = listed(tasks) or "none yet"
            raise ValueError(
                f"reuse names {name!r}, which is not a committed task of the pack: {known}."
            )
    return (*sorted({tasks.index(name) + 1 for name in names}), len(tasks) + 1)
