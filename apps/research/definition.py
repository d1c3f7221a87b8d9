"""The definition of a comparison: trunk, tasks, and methods with their options."""

import dataclasses
import itertools

from packnet_tf.apps.research.settings import (
    Distillation,
    LowRank,
    NoOptions,
    Packing,
    Picking,
    Piggyback,
    Settings,
    Supermasks,
    Trunk,
    WinningSubnetworks,
)

# The methods, each with the dataclass of its own options, beyond the settings common to all.
METHODS = {
    "packnet": Packing,
    "individual": NoOptions,
    "classifier_only": NoOptions,
    "guide": NoOptions,
    "fine_tuning": NoOptions,
    "lwf": Distillation,
    "joint": NoOptions,
    "batchnorm_only": NoOptions,
    "lora": LowRank,
    "piggyback": Piggyback,
    "supsup": Supermasks,
    "wsn": WinningSubnetworks,
    "cpg": Picking,
}
BETTER, DIVERGED = "better", "diverged"  # why a linear head is in place of what was trained
# Methods that share a trunk which no task changes, so that each task is learnt alone.
SHARING = ("classifier_only", "batchnorm_only", "lora", "piggyback", "supsup")
# The methods that `methods/rivals` learns.
RIVALS = ("batchnorm_only", "lora", "piggyback", "supsup", "wsn", "cpg")
# Methods with a run per task.
ALONE = ("individual", "guide", *SHARING)
# Methods for which the order of tasks does not matter: they learn each task alone, or all at once.
UNORDERED = (*ALONE, "joint")


@dataclasses.dataclass(frozen=True)
class Method:
    """A method with its settings: one line of the report.

    Attributes:
        label: its name in the report.
        kind: a key of `METHODS`.
        settings: its own settings and options, for all tasks.
        later: its own settings for every task but the first of an order.
        choose: several values by setting or option; the best on validation images is chosen.
        orders: orders of the tasks; None for those of the comparison.
    """

    label: str
    kind: str
    settings: dict
    later: dict
    choose: dict
    orders: tuple[tuple[str, ...], ...] | None

    def candidates(self) -> list[dict]:
        """Returns every combination of the values in `choose`; one empty dict if it is empty."""
        lists = [[(name, value) for value in values] for name, values in self.choose.items()]
        return [dict(combination) for combination in itertools.product(*lists)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods to compare, and the tasks to compare them on.

    Attributes:
        trunk: the network that all methods start from.
        image_size: height and width in pixels; None for the trunk's input size.
        tasks: by name, the folder of the task's images, and its own settings.
        orders: orders in which to learn the tasks, each a tuple of all names.
        seeds: seeds of weights, shuffling and augmentation; every method runs with each.
        settings: settings for all tasks.
        methods: the lines of the report.
        published_errors: published top-1 errors in %, by label and task, shown in the report.
    """

    trunk: Trunk
    image_size: int | None
    tasks: dict[str, tuple[str, dict]]
    orders: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    settings: dict
    methods: tuple[Method, ...]
    published_errors: dict[str, dict[str, float]]


def task_settings(comparison: Comparison, method: Method, candidate: dict, task: str, place: int):
    """Returns the `Settings` of a task at its place in an order; specific ones override general."""
    _, own = comparison.tasks[task]
    later = method.later if place else {}
    values = {**comparison.settings, **own, **method.settings, **later, **candidate}
    return Settings(**_of(Settings, values))


def method_options(method: Method, candidate: dict) -> dict:
    """Returns the options of a method, with defaults."""
    kind = METHODS[method.kind]
    return dataclasses.asdict(kind(**_of(kind, {**method.settings, **candidate})))


def _of(kind: type, values: dict) -> dict:
    """Returns the values that are fields of a dataclass."""
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}
