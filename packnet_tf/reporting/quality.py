"""Checks a task's accuracies and describes what is wrong."""

from collections.abc import Mapping

FLOOR = 0.005  # tolerated accuracy below that of a linear head
FAR = 0.05  # tolerated loss of accuracy between the prune and the end of retraining
LUCK = 0.1  # share of the accuracies above chance that still counts as guessing


def shortfalls(task: str, results: Mapping[str, float]) -> list[str]:
    """Describes the shortfalls of a task.

    Args:
        task: the task's name.
        results: accuracies on validation images, 0 to 1, as `net.results(task)` returns them:
            `retrained`, and optionally `linear_head`, `before_prune` and `chance`.

    Returns:
        A sentence with a remedy for each shortfall; an empty list if there is none.

    Example:
        >>> shortfalls("pets", {"retrained": 0.2, "chance": 0.2})[0].partition(",")[0]
        "Task 'pets' is no better than guessing"
    """
    reached = results.get("retrained")
    if reached is None:
        return []
    chance, floor = results.get("chance"), results.get("linear_head", 0.0)
    before, found = results.get("before_prune", 0.0), []
    what = f"{reached:.1%} of validation images right"
    remedy = "see docs/guides/low_accuracy.md"
    if chance is not None and reached <= chance + LUCK * (1.0 - chance):
        found.append(
            f"Task '{task}' is no better than guessing, {what} where chance is {chance:.1%}: check "
            "the labels and the pixel values that the trunk wants, and train longer or at a lower "
            f"learning rate; {remedy}."
        )
    if reached < floor - FLOOR:
        found.append(
            f"Task '{task}' is below a linear head on the frozen trunk, {what} where the head "
            f"has {floor:.1%}: pack it again, starting from packnet_tf.linear_head, with "
            f'reuse="auto", a lower prune ratio or more epochs; {remedy}.'
        )
    elif reached < before - FAR:
        found.append(
            f"Task '{task}' lost much to its prune, {what} where {before:.1%} were before it: pack "
            f"it again with a lower prune ratio or more epochs of retraining; {remedy}."
        )
    return found
