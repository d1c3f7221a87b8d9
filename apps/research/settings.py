"""How a task is learnt: what may be set, for all tasks, one of them, or one method."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping

# The least that a number may be; 0 where nothing is said.
LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "decay_every": 1,
    "shorter_side": 8,
    "validation_share": 0.001,
    "temperature": 0.001,
}
MOST = {"validation_share": 0.9, "max_drop": 1, "base": 1}
CHOICES = {
    "optimizer": ("auto", "sgd", "adam", "adamw"),
    "decay": ("cosine", "step", "none"),
    "head": ("new", "linear", "pretrained"),
    "biases": ("shared", "per_task"),
    "norms": ("shared", "per_task"),
    "reuse": ("auto", "all", "none"),
    "restart": ("auto", "trunk", "zero", "fresh"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How one task is learnt, by every method alike.

    Attributes:
        epochs: all epochs of the task.
        prune_epoch: the epoch whose start prunes. Methods that do not prune go on with a fresh
            optimizer at the rate of the retraining, so that all have the same schedule.
        batch_size: images per step.
        learning_rate: of the first epoch.
        retrain_learning_rate: of epoch `prune_epoch`; None: a tenth of `learning_rate`.
        decay: of both, to a tenth: "cosine" along half a cosine, "step" after every
            `decay_every` epochs, or "none".
        optimizer: "sgd" (momentum 0.9), "adam" or "adamw"; "auto": "adam" for packing beside a
            base, where tasks train few weights, else "sgd".
        flip: mirror half of the training images left to right.
        crop: pad training images by a sixteenth and crop them at random; with `shorter_side`, cut
            a random part of 8 to 100 % of the image and resize it.
        shorter_side: resize images to this shorter side, keeping proportions, and evaluate on the
            centre; None: stretch them to the size of the network.
        validation_share: of the training images, where a task has no validation folder.
        cache: whether to keep decoded images in memory.
        head: "new", as in `packnet train`: a linear layer on features scaled to a common size,
            which begins converged where the trunk is trained; "linear", a random one on the
            features as they are, as in the paper; or "pretrained", the network's
            own classifier for the task that it was trained on. Such a network is trained no
            further, but for the retraining after a prune.
    """

    epochs: int = 15
    prune_epoch: int = 10
    batch_size: int = 32
    learning_rate: float = 0.003
    retrain_learning_rate: float | None = None
    decay: str = "cosine"
    decay_every: int = 10
    optimizer: str = "auto"
    flip: bool = False
    crop: bool = True
    shorter_side: int | None = None
    validation_share: float = 0.1
    cache: bool = True
    head: str = "new"

    def __post_init__(self):
        if self.prune_epoch >= self.epochs:
            raise ValueError(
                f"prune_epoch: {self.prune_epoch} is not below epochs: {self.epochs}; epochs count "
                "those after the prune too."
            )

    @property
    def rate_after(self) -> float:
        """The learning rate of epoch `prune_epoch`."""
        given = self.retrain_learning_rate
        return self.learning_rate / 10 if given is None else given


@dataclasses.dataclass(frozen=True)
class Packing:
    """What the method packnet takes besides.

    Attributes:
        prune: a ratio for all tasks; "paper", 0.5 for the first and 0.75 for the others
            (in both cases the last task keeps all it claims); "equal_shares"; "auto"; or a list
            of one ratio per task.
        gradual: prune a little at a time during the training instead of at once after it, see
            `rates.pruning`.
        scale_rate: learn at a higher rate where a task trains less, see `rates.factors`, from a
            head that is as much smaller.
        max_drop: for "auto", how far validation accuracy may fall.
        biases, norms, restart: see `packnet_tf.PackNet`; restart "auto": "zero" beside a base, else
            "trunk".
        base: share of a pretrained trunk to release for the tasks; the rest is kept for all, as
            `packnet train` does by default. None: the first task may change the whole trunk.
        base_epochs: epochs of the base's repair.
        reuse: which earlier tasks' weights a task sees, see `base.reused`.
    """

    prune: str | float | list[float] = 0.75
    gradual: bool = True
    scale_rate: bool = True
    max_drop: float = 0.01
    biases: str = "shared"
    norms: str = "per_task"
    restart: str = "auto"
    base: float | None = 0.3
    base_epochs: int = 2
    reuse: str = "auto"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What the method lwf takes besides.

    Attributes:
        norms: "frozen": normalisation stays that of the first task; "trained": it goes with every
            task, and old heads then see features normalised for the newest.
        temperature: of the softmax of old tasks' answers.
        weight: of their loss against the new task's.
        warm_up: epochs before the others in which the new head trains alone.
    """

    norms: str = "frozen"
    temperature: float = 2.0
    weight: float = 1.0
    warm_up: int = 2


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Of the methods that take nothing besides."""


# Where a name has other choices than elsewhere.
CHOICES_OF = {Distillation: {"norms": ("frozen", "trained")}}


def check(kind: type, values: Mapping, where: str) -> dict:
    """Returns values that a dataclass of settings takes.

    Args:
        kind: the dataclass, `Settings` for instance.
        values: by the names of its attributes.
        where: the place in the file, for errors.

    Raises:
        ValueError: a name or a value is none of the dataclass.
    """
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{where} is {values!r}; expected names and values, for instance epochs: 12."
        )
    hints = typing.get_type_hints(kind)
    check_names(values, hints, where)
    checked = {}
    for name, value in values.items():
        value = _as_number(value, _kinds(hints[name]))
        _check_value(name, value, hints[name], CHOICES_OF.get(kind, CHOICES), where)
        checked[name] = value
    return checked


def check_names(names, known, where: str) -> None:
    """Refuses a name that is not among the known ones, and suggests the nearest.

    Raises:
        ValueError: there is one.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise ValueError(f"{where} has '{name}'. {hint}It takes: {', '.join(known)}.")


def _as_number(value, kinds: tuple):
    """Whole numbers as floats where those are asked for, and what YAML 1.1 takes for text: 1e-3."""
    if float not in kinds or isinstance(value, bool) or not isinstance(value, (int, str)):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _check_value(name: str, value, hint, choices: Mapping, where: str) -> None:
    kinds = _kinds(hint)
    if name in choices and value not in choices[name]:
        raise ValueError(f"{where} has {name}: {value}; write one of {', '.join(choices[name])}.")
    plain = [typing.get_origin(kind) or kind for kind in kinds]
    right = any(isinstance(value, kind) for kind in plain)
    if isinstance(value, bool) and bool not in plain:
        right = False
    if not right:
        named = " or ".join("null" if kind is type(None) else kind.__name__ for kind in plain)
        raise ValueError(f"{where} has {name}: {value!r}; expected {named}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = LEAST.get(name, 0), MOST.get(name)
        if value < least or (most is not None and value > most):
            range_ = f"from {least} up" if most is None else f"from {least} to {most}"
            raise ValueError(f"{where} has {name}: {value}; expected a number {range_}.")


def _kinds(hint) -> tuple:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
