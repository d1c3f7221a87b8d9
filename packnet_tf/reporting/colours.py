"""Colours for tasks in pictures."""

import colorsys

# The colours of Okabe and Ito (2008), which colour-blind readers can tell apart. The others each
# have the largest CIELAB distance to those before them, to white, and to the grey of free weights.
_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000",
    "#0000FF", "#00FF00", "#FF33FF", "#000066", "#FF0066", "#660000", "#0066FF", "#666600",
    "#00FF99", "#339900", "#00FFFF", "#666666",
)  # fmt: skip


def task_colours(count: int) -> list[str]:
    """Returns different colours for the tasks of a picture, in the order of packing.

    The first eight are safe for colour-blind readers. Up to 20 are easy to tell apart.

    Args:
        count: number of tasks.

    Returns:
        `count` colours in the form "#RRGGBB". The first ones do not depend on `count`.

    Example:
        >>> task_colours(2)
        ['#0072B2', '#E69F00']
    """
    colours = list(_COLOURS[:count])
    for number in range(len(colours), count):  # hues a golden section apart
        rgb = colorsys.hsv_to_rgb(0.618034 * number % 1.0, 0.6, 0.75)
        colours.append("#" + "".join(f"{round(255 * part):02X}" for part in rgb))
    return colours
