"""The runs of a comparison: every method with every seed and order, identified by a hash."""

import dataclasses
import functools
import hashlib
import json
import pathlib

import packnet_tf
from packnet_tf.apps.images.folders import Folder, content_digest, read_folder
from packnet_tf.apps.images.model_files import SUFFIXES
from packnet_tf.apps.research.definition import (
    ALONE,
    UNORDERED,
    Comparison,
    Method,
    method_options,
    task_settings,
)
from packnet_tf.apps.research.settings import Settings

SHOWN = 6  # names of tasks in a title


@dataclasses.dataclass(frozen=True)
class Run:
    """One training from the trunk to its last task: what its result depends on, and a label.

    Attributes:
        kind: a key of `METHODS`.
        options: options of the method.
        trunk: the trunk of the comparison as a dict, with the digest of its files.
        image_size: height and width in pixels; None for the trunk's input size.
        seed: seed of weights, shuffling and augmentation.
        tasks: dicts in the order of learning, with `name`, `data` (the folder), `digest` (of the
            folder's files) and `settings`.
        label: the label of its method in the report, with the values of `choose`; for messages.
    """

    kind: str
    options: dict
    trunk: dict
    image_size: int | None
    seed: int
    tasks: tuple[dict, ...]
    label: str = dataclasses.field(default="", compare=False)

    @property
    def key(self) -> str:
        """A hash of the run that does not depend on the location of its files.

        The version of packnet_tf is part of it, so that one table never mixes two versions.
        """
        content = dataclasses.asdict(self) | {"version": packnet_tf.__version__}
        del content["label"]
        for task in content["tasks"]:
            del task["data"]
            task["settings"].pop("cache", None)  # caching does not change the result
        trunk = content["trunk"]
        if trunk["digest"]:  # the digest identifies these files
            trunk |= {"network": None, "weights": None}
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """The title of the run in messages."""
        names = [task["name"] for task in self.tasks]
        if len(names) > SHOWN:
            names = [*names[: SHOWN - 1], f"... ({len(names)} tasks)"]
        return f"{self.label or self.kind}: {', '.join(names)}; seed {self.seed}"

    def write(self, path: pathlib.Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: pathlib.Path) -> "Run":
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**content, "tasks": tuple(content["tasks"])})


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of the report, filled by one run or several.

    Attributes:
        label: label of the method.
        candidate: the values of its settings in `choose`.
        order: names of the tasks; None for methods without an order.
        seed: seed of the runs.
        runs: the run, or one run per task for methods that learn each task alone.
    """

    label: str
    candidate: dict
    order: tuple[str, ...] | None
    seed: int
    runs: tuple[Run, ...]


def entries(comparison: Comparison) -> list[Entry]:
    """Returns the entries of the report of a comparison.

    Raises:
        OSError, ValueError: a folder or a file is missing, cannot be read, or is invalid.
    """
    digests = {
        name: content_digest(_folder(comparison, name, path), path)[:16]
        for name, (path, _) in comparison.tasks.items()
    }
    trunk = dataclasses.asdict(comparison.trunk)
    trunk["digest"] = file_digest(comparison.trunk)
    found = []
    for method in comparison.methods:
        for candidate in method.candidates():
            for seed in comparison.seeds:
                for order in _orders(comparison, method):
                    makes = _Maker(comparison, method, candidate, trunk, digests, seed)
                    names = order or tuple(comparison.tasks)
                    alone = method.kind in ALONE
                    runs = [makes.run([n]) for n in names] if alone else [makes.run(names)]
                    found.append(Entry(method.label, candidate, order, seed, tuple(runs)))
    return found


def folder_of(task: dict, seed: int) -> Folder:
    """Returns the image files of a task of a run."""
    return _list_folder(task["data"], task["settings"]["validation_share"], seed)


@functools.cache
def _list_folder(path: str, validation_share: float, seed: int) -> Folder:
    """Lists a folder; cached, because many runs use the same large folders."""
    return read_folder(path, validation_share, seed)


def file_digest(trunk) -> str:
    """Returns a hash of a trunk's files; empty if it has none."""
    paths = [path for path in (trunk.network, trunk.weights) if pathlib.Path(path).suffix]
    if not paths:
        return ""
    found = hashlib.sha256()
    for path in paths:
        if not pathlib.Path(path).exists():
            raise FileNotFoundError(
                f"There is no file '{path}'. Paths in the file are relative to it, or to --data."
            )
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    if not trunk.network.endswith(SUFFIXES):
        found.update(trunk.network.encode())
    return found.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Maker:
    comparison: Comparison
    method: Method
    candidate: dict
    trunk: dict
    digests: dict
    seed: int

    def run(self, names) -> Run:
        """Returns the run that learns these tasks in this order."""
        options = method_options(self.method, self.candidate)
        alone = self.method.kind in ALONE
        tasks = [self._task(name, 0 if alone else place) for place, name in enumerate(names)]
        label = [self.method.label, *(f"{name} {value}" for name, value in self.candidate.items())]
        return Run(
            self.method.kind, options, self.trunk, self.comparison.image_size, self.seed,
            tuple(tasks), ", ".join(label),
        )  # fmt: skip

    def _task(self, name: str, place: int) -> dict:
        settings = task_settings(self.comparison, self.method, self.candidate, name, place)
        return {
            "name": name,
            "data": self.comparison.tasks[name][0],
            "digest": self.digests[name],
            "settings": dataclasses.asdict(settings),
        }


def _orders(comparison: Comparison, method: Method):
    if method.kind in UNORDERED:
        return [None]
    return method.orders or comparison.orders


def _folder(comparison: Comparison, name: str, path: str) -> Folder:
    settings = {**comparison.settings, **comparison.tasks[name][1]}
    try:
        folder = read_folder(path, settings.get("validation_share", Settings.validation_share))
    except (OSError, ValueError) as error:
        raise type(error)(f"task '{name}': {error}") from error
    if "test" not in folder.files:
        raise ValueError(
            f"task '{name}': '{path}' has no folder 'test'. Methods are compared on test images; "
            "expected {train,validation,test}/<class>/<image>, of which validation is optional."
        )
    return folder
