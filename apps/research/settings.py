"""Settings of `packnet compare`: those of `packnet train`, with intended differences.

All differences are in this file:

- Names: `network`, `output` and `weights` are --trunk, --trunk_output and --trunk_weights; `base`
  is --adopt with --adopt_ratio, and `base_epochs` is --adopt_epochs.
- `prune` combines --prune and --prune_ratio; the last task of an order keeps all it claims.
- No default depends on other values (`prune_epoch`) or on an existing pack (`biases`, `norms`,
  `restart`), because a run is identified by a hash of these values.
- `reuse` takes no names, because tasks come in several orders.
- `decay`, `decay_every`, `shorter_side` and `head` also offer the paper's choices.
"""

import dataclasses

from packnet_tf.apps.packs.overlay import overlay_setting
from packnet_tf.apps.packs.plan import Learning, Plan
from packnet_tf.apps.settings import like, setting


@dataclasses.dataclass(frozen=True)
class Trunk:
    """The network that every method starts from."""

    network: str = setting(
        dataclasses.MISSING, "A .keras file, a model of keras.applications, or VGG16_BN."
    )
    output: str | None = like(Plan, "trunk_output")
    weights: str = like(Plan, "trunk_weights")
    pixel_scale: str | None = like(Plan, "pixel_scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Learning):
    """The training settings of one task, the same for every method."""

    prune_epoch: int = like(
        Learning,
        "prune_epoch",
        default=10,
        help="Prune at the start of this epoch. Methods that do not prune continue with a fresh "
        "optimizer at the retraining rate, so that all methods have the same schedule.",
    )
    decay: str = setting(
        "cosine",
        "Decay of both rates: to a tenth along half a cosine, to a tenth after every decay_every "
        "epochs, or none.",
        choices=("cosine", "step", "none"),
    )
    decay_every: int = setting(10, "Epochs between steps.", least=1)
    shorter_side: int | None = setting(
        None,
        "Resize images to this shorter side, keeping proportions, train on crops of 8 to 100 % of "
        "them, and evaluate on the centre; null: stretch them to the network's input size.",
        least=8,
    )
    head: str = setting(
        "new",
        "new, as in packnet train: a linear layer on features scaled to a common size, which "
        "starts converged on a trained trunk; linear, as in the paper: a random one on unscaled "
        "features; or pretrained: the network's own classifier, for the task that it was trained "
        "on. Such a network is trained no further, except for the retraining after a prune.",
        choices=("new", "linear", "pretrained"),
    )

    def __post_init__(self) -> None:
        if self.prune_epoch >= self.epochs:
            raise ValueError(
                f"prune_epoch: {self.prune_epoch} is not below epochs: {self.epochs}; epochs count "
                "those after the prune too."
            )


@dataclasses.dataclass(frozen=True)
class Packing:
    """The options of the method packnet."""

    prune: str | float | list[float] = setting(  # noqa: RUF009
        0.75,
        "A ratio for all tasks; paper, 0.5 for the first and 0.75 for the others (in both cases "
        "the last task keeps all it claims); equal_shares; auto; or a list of one ratio per task.",
        least=0,
    )
    gradual: bool = like(Plan, "gradual")
    scale_rate: bool = like(Plan, "scale_rate")
    max_drop: float = like(Plan, "max_drop")
    biases: str = like(Plan, "biases", default="shared")
    norms: str = like(Plan, "norms", default="per_task")
    restart: str = like(Plan, "restart", default="auto", choices=("auto", "trunk", "zero", "fresh"))
    base: float | None = like(
        Plan,
        "adopt_ratio",
        help="Fraction of a pretrained trunk to release for tasks; the rest is kept for all tasks. "
        "null: the first task may change the whole trunk.",
    )
    base_epochs: int = like(Plan, "adopt_epochs")
    reuse: str = like(Plan, "reuse", choices=("auto", "all", "none"))
    overlay: str | float = like(Plan, "overlay")

    def __post_init__(self) -> None:
        overlay_setting(self.overlay)  # refuses others


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The options of the method lwf."""

    norms: str = setting(
        "frozen",
        "frozen: normalisation stays as after the first task; trained: it trains with every task, "
        "so old heads get features normalised for the newest task.",
        choices=("frozen", "trained"),
    )
    temperature: float = setting(2.0, "Temperature of the softmax of old heads.", least=0.001)
    weight: float = setting(1.0, "Weight of their loss relative to the new task's.", least=0)
    warm_up: int = setting(
        2, "Additional epochs at the start in which the new head trains alone.", least=0
    )


def _score_rate(default: float | None):
    return setting(
        default,
        "Learning rate of the scores at the start of training; it falls as the other rate does. "
        "null: learning_rate.",
        least=1e-9,
    )


@dataclasses.dataclass(frozen=True)
class LowRank:
    """The options of the method lora."""

    rank: int = setting(4, "Rank of the product that is added to every kernel.", least=1)
    norms: str = setting(
        "own",
        "own: normalisation trains with every task, which keeps its own; trunk: it stays as the "
        "trunk's, in inference mode.",
        choices=("own", "trunk"),
    )


@dataclasses.dataclass(frozen=True)
class Piggyback:
    """The options of the method piggyback."""

    score_rate: float | None = _score_rate(1e-4)
    norms: str = like(LowRank, "norms")


@dataclasses.dataclass(frozen=True)
class Supermasks:
    """The options of the method supsup."""

    weights: str = setting(
        "random",
        "random: the masks choose from random weights, which a seed replaces in storage; trunk: "
        "from the trunk's.",
        choices=("random", "trunk"),
    )
    share: float = setting(
        0.5, "Share of every kernel that a task sees: the largest scores.", least=0.001, most=1
    )
    scores: str = setting(
        "random",
        "The first scores. random, as in the papers; magnitude: those of the weights, so that a "
        "task starts with the largest ones of a pretrained trunk.",
        choices=("random", "magnitude"),
    )
    score_rate: float | None = _score_rate(None)

    def __post_init__(self) -> None:
        if self.weights == "random" and self.scores == "magnitude":
            raise ValueError(
                "scores: magnitude cannot rank random weights, which all have one magnitude. Write "
                "scores: random, or weights: trunk."
            )


@dataclasses.dataclass(frozen=True)
class WinningSubnetworks:
    """The options of the method wsn."""

    share: float = like(Supermasks, "share")
    scores: str = like(Supermasks, "scores")
    score_rate: float | None = _score_rate(None)
    norms: str = like(LowRank, "norms")


@dataclasses.dataclass(frozen=True)
class Picking:
    """The options of the method cpg."""

    prune: str | float | list[float] = like(  # noqa: RUF009
        Packing,
        "prune",
        help="A ratio for all tasks but the last, which keeps all it has; paper, equal_shares or a "
        "list, as for packnet.",
    )
    gradual: bool = like(Packing, "gradual")
    base: float | None = like(Packing, "base")
    score_rate: float | None = _score_rate(1e-4)
    norms: str = like(LowRank, "norms")

    def __post_init__(self) -> None:
        if self.prune == "auto":
            raise ValueError("prune: auto is for packnet alone. Write a ratio, or equal_shares.")


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The options of methods that have none."""
