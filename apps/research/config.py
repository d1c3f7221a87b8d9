"""Reads the YAML file of `packnet compare` and checks it."""

import dataclasses
import pathlib
from collections.abc import Mapping

import yaml

from packnet_tf.apps.images.model_files import SUFFIXES
from packnet_tf.apps.packs.plan import BASE
from packnet_tf.apps.research.definition import (
    METHODS,
    RIVALS,
    UNORDERED,
    Comparison,
    Method,
    method_options,
    task_settings,
)
from packnet_tf.apps.research.settings import Settings, Trunk
from packnet_tf.apps.settings import check, check_names
from packnet_tf.backend.text import quoted
from packnet_tf.tasks.integrity.names import check_portable

LARGEST = 100_000  # bytes of a file, and parts of what it describes
DEEPEST = 100  # lists within lists
TOP = ("trunk", "image_size", "tasks", "orders", "seeds", "settings", "methods", "published_errors")


def read_comparison(path, data=None) -> Comparison:
    """Reads a file of `packnet compare`.

    With `base: FILE` at its top, it takes from that file, relative to its folder, what it does not
    have at the top, and under `settings`.

    Args:
        path: the YAML file.
        data: folder that relative paths in it start from; default the file's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an entry is invalid; the message names it.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file '{path}'. Write a YAML file with {', '.join(TOP)}; see "
            "docs/guides/compare.md."
        )
    content = _read(path)
    try:
        if isinstance(content, Mapping) and "base" in content:
            content = _merge_base(content, [path])
        return parse(content, pathlib.Path(data) if data is not None else path.parent)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error


def _read(path: pathlib.Path):
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise ValueError(f"it has {size:,} bytes, and comparisons have at most {LARGEST:,}")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        if _size_of(content, {}) > LARGEST:
            raise ValueError("its aliases repeat more than a comparison can hold")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"'{path}' is not a readable YAML file: {quoted(error)}") from error
    return content


class _Loader(yaml.SafeLoader):
    """Reads plain values, and refuses a name that is there twice, of which YAML takes the last."""

    def fetch_flow_collection_start(self, *args):
        # Each character costs as much as there are lists open: seconds, before the parser gives up.
        if self.flow_level == DEEPEST:
            raise ValueError(f"its lists lie more than {DEEPEST} deep in each other")
        super().fetch_flow_collection_start(*args)

    def construct_mapping(self, node, deep=False):
        seen: set[str] = set()
        for key, _ in node.value:
            name, merge = str(key.value), key.tag == "tag:yaml.org,2002:merge"
            if name in seen and not merge:
                raise ValueError(f"'{name}' is there twice, in line {key.start_mark.line + 1}")
            seen.add(name)
        return super().construct_mapping(node, deep)


def _size_of(value, known: dict[int, int]) -> int:
    """Counts the parts of a value, those of an alias wherever it stands.

    Args:
        value: what YAML describes; a value that contains itself is refused.
        known: the numbers of lists and dicts that are counted, by their `id`.
    """
    if not isinstance(value, (list, dict)):
        return 1
    if id(value) not in known:
        known[id(value)] = LARGEST + 1  # while it is counted: it would contain itself
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size_of(part, known) for part in parts)
    return known[id(value)]


def _merge_base(content: Mapping, paths: list[pathlib.Path]) -> dict:
    """Merges the content of a file into that of its base.

    Args:
        content: content of the last file of `paths`.
        paths: a chain of files, each of which is the base of the one before it.
    """
    path = paths[-1].parent / str(content["base"])
    if path.resolve() in [other.resolve() for other in paths]:
        raise ValueError(f"its base '{content['base']}' leads back to '{path}'.")
    base = _read(path)
    if not isinstance(base, Mapping):
        raise ValueError(f"its base '{content['base']}' has no names and values at the top.")
    if "base" in base:
        base = _merge_base(base, [*paths, path])
    own = {name: value for name, value in content.items() if name != "base"}
    both = [part.get("settings") for part in (base, own)]
    if all(isinstance(settings, Mapping) for settings in both):
        own["settings"] = {**both[0], **both[1]}
    return {**base, **own}


def parse(content: Mapping, data: pathlib.Path) -> Comparison:
    """Checks the content of a file; `data` is the folder that relative paths start from.

    Raises:
        ValueError: an entry is invalid.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"expected names and values at the top: {', '.join(TOP)}.")
    check_names(content, TOP, "the file")
    for name in ("trunk", "tasks", "methods"):
        if not content.get(name):
            raise ValueError(f"'{name}' is missing; the file takes: {', '.join(TOP)}.")
    settings = check(content.get("settings") or {}, "settings", Settings)
    tasks = _tasks(content["tasks"], data)
    methods = content["methods"]
    if not isinstance(methods, Mapping):
        raise ValueError("methods are names with options; write methods: {packnet: {}, joint: {}}.")
    methods = tuple(
        _method(str(label), given or {}, tuple(tasks)) for label, given in methods.items()
    )
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
    _check_combinations(comparison)
    return comparison


def _trunk(given, data: pathlib.Path) -> Trunk:
    if isinstance(given, str):
        given = {"network": given}
    if not isinstance(given, Mapping) or "network" not in given:
        raise ValueError("trunk has no network; write trunk: MobileNetV2, or network: FILE.keras.")
    trunk = Trunk(**check(given, "trunk", Trunk))
    changes = {}
    if trunk.network.endswith(SUFFIXES):
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
        check_portable(str(name))
        entry = {"data": entry} if isinstance(entry, str) else dict(entry or {})
        folder = data / entry.pop("data", str(name))
        tasks[str(name)] = (str(folder), check(entry, f"task '{name}'", Settings))
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
    where, kinds = f"method '{label}'", (METHODS[kind], Settings)
    known = [name for kind in kinds for name in kind.__dataclass_fields__]
    check_names(given, [*known, "later", "choose", "orders"], where)
    choose = given.pop("choose", None) or {}
    if kind in UNORDERED and ("orders" in given or "later" in given):
        raise ValueError(
            f"{where} has orders or later, and {kind} knows no order of tasks; leave them out."
        )
    orders = given.pop("orders", None)
    later = check(given.pop("later", None) or {}, f"{where}, later", Settings)
    if not isinstance(choose, Mapping) or not all(
        isinstance(values, list) and values for values in choose.values()
    ):
        raise ValueError(
            f"{where} has a choose that is no choice; write learning_rate: [0.01, 0.1]."
        )
    chosen = {
        name: [check({name: v}, f"{where}, choose", *kinds)[name] for v in values]
        for name, values in choose.items()
    }
    settings = check(given, where, *kinds)
    return Method(label, kind, settings, later, chosen, orders and _orders(orders, tasks))


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


def _check_combinations(comparison: Comparison) -> None:
    """Finds invalid combinations of settings before hours of work begin."""
    for method in comparison.methods:
        for candidate in method.candidates():
            for order in method.orders or comparison.orders:
                for place, task in enumerate(order):
                    try:
                        settings = task_settings(comparison, method, candidate, task, place)
                        _check_head(settings, place, method, comparison.trunk)
                    except ValueError as error:
                        raise ValueError(f"method '{method.label}', {task}: {error}") from error
            try:
                options = method_options(method, candidate)
            except ValueError as error:
                raise ValueError(f"method '{method.label}': {error}") from error
            adopts = method.kind == "packnet" and options["base"] is not None
            if adopts and BASE in comparison.tasks:
                raise ValueError(
                    f"method '{method.label}' keeps the pretrained trunk as a task '{BASE}'. Call "
                    f"yours otherwise, my_{BASE}: {{data: {BASE}}}, or write base: null."
                )
            if "prune" in options:
                _check_prune(method.label, options["prune"], comparison)


def _check_head(settings: Settings, place: int, method: Method, trunk: Trunk) -> None:
    if settings.head != "pretrained":
        return
    if method.kind in RIVALS:
        raise ValueError(
            f"head: pretrained is not for {method.kind}, which trains every task. Write head: new, "
            "or leave the method out."
        )
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
