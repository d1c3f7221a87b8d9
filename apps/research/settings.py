"""Settings of `packnet compare`: those of `packnet train`, but for what differs on purpose.

All differences are in this file:

- Names: `network`, `output` and `weights` are --trunk, --trunk_output and --trunk_weights; `base`
  is --adopt with --adopt_ratio, and `base_epochs` --adopt_epochs.
- `prune` says in one value what --prune and --prune_ratio say; the last task of an order keeps all
  it claims.
- No default depends on other values (`prune_epoch`) or on a pack that exists (`biases`, `norms`,
  `restart`), for the hash of a run is made of what is written here.
- `reuse` takes no names: tasks come in several orders.
- `decay`, `decay_every`, `shorter_side` and `head` also offer what the paper does.
"""

import dataclasses

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
    """How one task is learnt, by every method alike."""

    prune_epoch: int = like(
        Learning,
        "prune_epoch",
        default=10,
        help="The epoch whose start prunes. Methods that do not prune go on with a fresh optimizer "
        "at the rate of the retraining, so that all have the same schedule.",
    )
    decay: str = setting(
        "cosine",
        "Of both rates, to a tenth: along half a cosine, in steps after every decay_every epochs, "
        "or none.",
        choices=("cosine", "step", "none"),
    )
    decay_every: int = setting(10, "Epochs from step to step.", least=1)
    shorter_side: int | None = setting(
        None,
        "Resize images to this shorter side, keeping proportions, cut crops of 8 to 100 % of them, "
        "and evaluate on the centre; null: stretch them to the size of the network.",
        least=8,
    )
    head: str = setting(
        "new",
        "new, as in packnet train: a linear layer on features scaled to a common size, which "
        "begins converged where the trunk is trained; linear, a random one on the features as they "
        "are, as in the paper; or pretrained, the network's own classifier for the task that it "
        "was trained on. Such a network is trained no further, but for the retraining after a "
        "prune.",
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
    """What the method packnet takes besides."""

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
        help="Fraction of a pretrained trunk to release for tasks, the rest being kept for all; "
        "null: the first task may change the whole trunk.",
    )
    base_epochs: int = like(Plan, "adopt_epochs")
    reuse: str = like(Plan, "reuse", choices=("auto", "all", "none"))


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What the method lwf takes besides."""

    norms: str = setting(
        "frozen",
        "frozen: normalisation stays that of the first task; trained: it goes with every task, and "
        "old heads then see features normalised for the newest.",
        choices=("frozen", "trained"),
    )
    temperature: float = setting(2.0, "Of the softmax of old tasks' answers.", least=0.001)
    weight: float = setting(1.0, "Of their loss against the new task's.", least=0)
    warm_up: int = setting(
        2, "Epochs before the others in which the new head trains alone.", least=0
    )


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Of the methods that take nothing besides."""
