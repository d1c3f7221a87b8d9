"""What a comparison is: the trunk, the tasks, and the methods with their options."""

import dataclasses
import itertools

from packnet_tf.apps.research.settings import Distillation, NoOptions, Packing, Settings, Trunk

# By the name of a method, what it takes besides the settings that all take.
METHODS = {
    "packnet": Packing,
    "individual": NoOptions,
    "classifier_only": NoOptions,
    "guide": NoOptions,
    "fine_tuning": NoOptions,
    "lwf": Distillation,
    "joint": NoOptions,
}
# Methods that learn every task alone, or all at once.
UNORDERED = ("individual", "classifier_only", "guide", "joint")


@dataclasses.dataclass(frozen=True)
class Method:
    """A method as one line of the report: how to learn, and with which options.

    Attributes:
        label: its name in the report.
        kind: a key of `METHODS`.
        settings: that differ from the others', for all tasks; of the dataclass in `METHODS` too.
        later: that differ for every task but the first of an order.
        choose: by the name of a setting or an option, several values; validation data choose.
        orders: of tasks; None: those of the comparison.
    """

    label: str
    kind: str
    settings: dict
    later: dict
    choose: dict
    orders: tuple[tuple[str, ...], ...] | None

    def candidates(self) -> list[dict]:
        """Every combination of the values to choose from; one, empty, where there is no choice."""
        lists = [[(name, value) for value in values] for name, values in self.choose.items()]
        return [dict(combination) for combination in itertools.product(*lists)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What to compare, on what.

    Attributes:
        trunk: where all start from.
        image_size: height and width in pixels; None: what the trunk takes.
        tasks: by name, the folder of its images and the settings of its own.
        orders: in which tasks are learnt, each a tuple of all names.
        seeds: of weights, shuffling and augmentation; every method runs with each.
        settings: of all tasks.
        methods: the lines of the report.
        published_errors: top-1 errors in % that others found, by label and task, to stand beside.
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
    """The `Settings` of a task, at its place in an order; the most particular ones win."""
    _, own = comparison.tasks[task]
    later = method.later if place else {}
    values = {**comparison.settings, **own, **method.settings, **later, **candidate}
    return Settings(**_of(Settings, values))


def method_options(method: Method, candidate: dict) -> dict:
    """The options of a method, defaults included."""
    kind = METHODS[method.kind]
    return dataclasses.asdict(kind(**_of(kind, {**method.settings, **candidate})))


def _of(kind: type, values: dict) -> dict:
    """The values that are of a dataclass."""
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}
