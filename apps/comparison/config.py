"""The file that says what to compare: YAML in, a checked `Comparison` out."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping

import yaml

from packnet_tf.apps.comparison.settings import (
    Distillation,
    NoOptions,
    Packing,
    Settings,
    check,
    check_names,
)

# By the name of a method, what it takes besides the settings that all take.
METHODS = {
    "packnet": Packing,
    "individual": NoOptions,
    "classifier_only": NoOptions,
    "fine_tuning": NoOptions,
    "lwf": Distillation,
    "joint": NoOptions,
}
# Methods that learn every task alone, or all at once.
UNORDERED = ("individual", "classifier_only", "joint")
TOP = ("trunk", "image_size", "tasks", "orders", "seeds", "settings", "methods", "published_errors")


@dataclasses.dataclass(frozen=True)
class Trunk:
    """The network that every method starts from.

    Attributes:
        network: a `.keras` file, a model of keras.applications, or VGG16_BN.
        output: the layer whose output are the features, to leave out a file's own head.
        weights: of a network by name: "imagenet", "none", or the path of a Keras weights file.
        pixel_scale: see `trunks.scale_pixels`.
    """

    network: str
    output: str | None = None
    weights: str = "imagenet"
    pixel_scale: str | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A method as one line of the report: how to learn, and with which options.

    Attributes:
        label: its name in the report.
        kind: a key of `METHODS`.
        options: of the dataclass that `METHODS` names.
        settings: that differ from the others', for all tasks.
        later: that differ for every task but the first of an order.
        choose: by the name of a setting or an option, several values; validation data choose.
        orders: of tasks; None: those of the comparison.
    """

    label: str
    kind: str
    options: dict
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


def read_comparison(path, data=None) -> Comparison:
    """Reads a file of `packnet compare`.

    With `base: FILE` at its top, what it does not say itself is taken from that file beside it.

    Args:
        path: the YAML file.
        data: folder that relative paths in it start from; None: the file's own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: something in it is not as it must be; the message says what and where.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file '{path}'. Write a YAML file with {', '.join(TOP)}; see "
            "docs/comparison.md."
        )
    content = _read(path)
    try:
        if isinstance(content, Mapping) and "base" in content:
            content = _upon_base(content, path.parent)
        return parse(content, pathlib.Path(data) if data is not None else path.parent)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error


def _read(path: pathlib.Path):
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"'{path}' is not a readable YAML file: {error}") from error


def _upon_base(content: Mapping, folder: pathlib.Path) -> dict:
    """What a file says, and from its base what it does not say; a base has none of its own."""
    base = _read(folder / str(content["base"]))
    if not isinstance(base, Mapping):
        raise ValueError(f"its base '{content['base']}' has no names and values at the top.")
    return {**base, **{name: value for name, value in content.items() if name != "base"}}


def parse(content: Mapping, data: pathlib.Path) -> Comparison:
    """Checks what a file says; `data` is the folder that relative paths start from.

    Raises:
        ValueError: something in it is not as it must be.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"expected names and values at the top: {', '.join(TOP)}.")
    check_names(content, TOP, "the file")
    for name in ("trunk", "tasks", "methods"):
        if not content.get(name):
            raise ValueError(f"'{name}' is missing; the file takes: {', '.join(TOP)}.")
    settings = check(Settings, content.get("settings") or {}, "settings")
    tasks = _tasks(content["tasks"], data)
    methods = content["methods"]
    if not isinstance(methods, Mapping):
        raise ValueError("methods are names with options; write methods: {packnet: {}, joint: {}}.")
    methods = tuple(_method(label, given or {}, tuple(tasks)) for label, given in methods.items())
    size = content.get("image_size")
    if size is not None and (not isinstance(size, int) or size < 8):
        raise ValueError(f"image_size is {size!r}; expected pixels, a whole number from 8 up.")
    comparison = Comparison(
        _trunk(content["trunk"], data),
        size,
        tasks,
        _orders(content.get("orders") or ["given"], tuple(tasks)),
        _seeds(content.get("seeds", [0])),
        settings,
        methods,
        _published(content.get("published_errors") or {}, tuple(tasks)),
    )
    _try_out(comparison)
    return comparison


def task_settings(comparison: Comparison, method: Method, candidate: dict, task: str, place: int):
    """The `Settings` of a task, at its place in an order; the most particular ones win."""
    _, own = comparison.tasks[task]
    fields = Settings.__dataclass_fields__
    chosen = {name: value for name, value in candidate.items() if name in fields}
    later = method.later if place else {}
    return Settings(**{**comparison.settings, **own, **method.settings, **later, **chosen})


def method_options(method: Method, candidate: dict) -> dict:
    """The options of a method, defaults included."""
    kind = METHODS[method.kind]
    chosen = {n: value for n, value in candidate.items() if n in kind.__dataclass_fields__}
    return dataclasses.asdict(kind(**{**method.options, **chosen}))


def _trunk(given, data: pathlib.Path) -> Trunk:
    if isinstance(given, str):
        given = {"network": given}
    if not isinstance(given, Mapping) or "network" not in given:
        raise ValueError("trunk has no network; write trunk: MobileNetV2, or network: FILE.keras.")
    trunk = Trunk(**check(Trunk, given, "trunk"))
    changes = {}
    if trunk.network.endswith(".keras"):
        changes["network"] = str(data / trunk.network)
    if trunk.weights not in ("imagenet", "none"):
        changes["weights"] = str(data / trunk.weights)
    return dataclasses.replace(trunk, **changes)


def _tasks(given, data: pathlib.Path) -> dict[str, tuple[str, dict]]:
    if not isinstance(given, Mapping):
        raise ValueError(
            "tasks are names with folders; write tasks: {birds: FOLDER, cars: FOLDER}."
        )
    tasks = {}
    for name, entry in given.items():
        entry = {"data": entry} if isinstance(entry, str) else dict(entry or {})
        folder = data / entry.pop("data", str(name))
        tasks[str(name)] = (str(folder), check(Settings, entry, f"task '{name}'"))
    return tasks


def _method(label: str, given, tasks: tuple[str, ...]) -> Method:
    if not isinstance(given, Mapping):
        raise ValueError(f"method '{label}' is {given!r}; expected names and values, or nothing.")
    given = dict(given)
    kind = given.pop("method", label)
    if kind not in METHODS:
        raise ValueError(
            f"method '{label}' is of no known kind; add method: to it, one of {', '.join(METHODS)}."
        )
    where, known = f"method '{label}'", {"later": None, "choose": None, "orders": None}
    own = METHODS[kind].__dataclass_fields__
    check_names(given, {**own, **Settings.__dataclass_fields__, **known}, where)
    choose = given.pop("choose", None) or {}
    if kind in UNORDERED and ("orders" in given or "later" in given):
        raise ValueError(
            f"{where} has orders or later, and {kind} knows no order of tasks; leave them out."
        )
    orders = given.pop("orders", None)
    later = check(Settings, given.pop("later", None) or {}, f"{where}, later")
    options = {name: value for name, value in given.items() if name in own}
    rest = {name: value for name, value in given.items() if name not in own}
    if not isinstance(choose, Mapping) or not all(
        isinstance(values, list) and values for values in choose.values()
    ):
        raise ValueError(
            f"{where} has a choose that is no choice; write learning_rate: [0.01, 0.1]."
        )
    chosen = {}
    for name, values in choose.items():
        check_names([name], {**own, **Settings.__dataclass_fields__}, f"{where}, choose")
        fields = METHODS[kind] if name in own else Settings
        chosen[name] = [check(fields, {name: v}, f"{where}, choose")[name] for v in values]
    return Method(
        label, kind, check(METHODS[kind], options, where), check(Settings, rest, where), later,
        chosen, orders and _orders(orders, tasks),
    )  # fmt: skip


def _orders(given, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    if not isinstance(given, list):
        given = [given]
    named = {"given": names, "reverse": names[::-1]}
    orders = []
    for order in given:
        order = named.get(order, order) if isinstance(order, str) else order
        if not isinstance(order, (list, tuple)) or sorted(map(str, order)) != sorted(names):
            raise ValueError(
                f"the order {order!r} is not one of all tasks; write given, reverse, or "
                f"[{', '.join(names)}] in another order."
            )
        orders.append(tuple(map(str, order)))
    return tuple(dict.fromkeys(orders))


def _seeds(given) -> tuple[int, ...]:
    given = given if isinstance(given, list) else [given]
    if not given or not all(isinstance(n, int) and not isinstance(n, bool) for n in given):
        raise ValueError(f"seeds are {given!r}; expected whole numbers, [0, 1].")
    return tuple(dict.fromkeys(given))


def _published(given, tasks: tuple[str, ...]) -> dict[str, dict[str, float]]:
    if not isinstance(given, Mapping) or not all(isinstance(e, Mapping) for e in given.values()):
        raise ValueError("published_errors are labels with tasks; write {paper: {birds: 20.4}}.")
    for label, errors in given.items():
        check_names(errors, tasks, f"published_errors, {label}")
        if not all(isinstance(e, (int, float)) and 0 <= e <= 100 for e in errors.values()):
            raise ValueError(f"published_errors, {label}: errors are percentages, 0 to 100.")
    return {str(label): dict(errors) for label, errors in given.items()}


def _try_out(comparison: Comparison) -> None:
    """Finds combinations that do not fit before hours of work begin."""
    for method in comparison.methods:
        for candidate in method.candidates():
            for order in method.orders or comparison.orders:
                for place, task in enumerate(order):
                    try:
                        settings = task_settings(comparison, method, candidate, task, place)
                        _check_head(settings, place, method, comparison.trunk)
                    except ValueError as error:
                        raise ValueError(f"method '{method.label}', {task}: {error}") from error
            if "prune" in method_options(method, candidate):
                _check_prune(method.label, method_options(method, candidate)["prune"], comparison)


def _check_head(settings: Settings, place: int, method: Method, trunk: Trunk) -> None:
    if settings.head != "pretrained":
        return
    if trunk.output is None:
        raise ValueError(
            "head: pretrained needs the trunk's output, the layer before the network's classifier; "
            "write trunk: {network: ResNet50, output: avg_pool}."
        )
    if place and method.kind not in UNORDERED:
        raise ValueError(
            "head: pretrained is for the first task of an order: later the network is no more what "
            "its classifier was trained on. Leave that order out, or give the task a new head."
        )


def _check_prune(label: str, prune, comparison: Comparison) -> None:
    if isinstance(prune, str) and prune not in ("paper", "equal_shares", "auto"):
        raise ValueError(
            f"method '{label}' has prune: {prune}; write paper, equal_shares, auto, a "
            "ratio, or a list of ratios."
        )
    if isinstance(prune, list) and len(prune) != len(comparison.tasks):
        raise ValueError(
            f"method '{label}' has {len(prune)} ratios for {len(comparison.tasks)} tasks; give one "
            "per task."
        )
    ratios = prune if isinstance(prune, list) else [prune] * isinstance(prune, float)
    if not all(isinstance(ratio, (int, float)) and 0 <= ratio <= 1 for ratio in ratios):
        raise ValueError(f"method '{label}' has prune: {prune}; ratios are numbers from 0 to 1.")
