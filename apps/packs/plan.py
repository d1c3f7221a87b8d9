"""The settings of `packnet train`; `research.settings` makes those of `packnet compare` of them."""

import dataclasses

from packnet_tf.apps.images.pixel_scales import SCALES
from packnet_tf.apps.settings import setting
from packnet_tf.packing.pruning import check_ratio

WAYS = ("ratio", "auto", "equal_shares")  # to prune, besides a list of ratios


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning:
    """How a task is learnt, by both commands alike."""

    epochs: int = setting(15, "All epochs, those after the prune included.", least=1)
    prune_epoch: int = setting(
        None,  # `Plan` computes it
        "The epoch whose start ends the pruning and begins the retraining; default two thirds of "
        "--epochs.",
        least=0,
    )
    batch_size: int = setting(32, "Images per step.", least=1)
    learning_rate: float = setting(0.003, "At the start of training; see --scale_rate.", least=0)
    retrain_learning_rate: float | None = setting(
        None, "After the prune; default a tenth of --learning_rate.", least=0
    )
    optimizer: str = setting(
        "auto",
        "auto: adam for tasks beside an adopted trunk, which train few weights, and sgd for "
        "others. SGD has momentum 0.9.",
        choices=("auto", "sgd", "adam", "adamw"),
    )
    flip: bool = setting(False, "Augment by mirroring left to right.")
    crop: bool = setting(True, "Augment by padding and random crops.")
    validation_share: float = setting(
        0.1,
        "Share of the training images to validate on where there is no validation folder.",
        least=0.001,
        most=0.9,
    )
    cache: bool = setting(True, "Keep decoded images in memory.")

    @property
    def rate_after(self) -> float:
        """The learning rate of epoch `prune_epoch`."""
        given = self.retrain_learning_rate
        return self.learning_rate / 10 if given is None else given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Learning):
    """The settings of a command `packnet train`, a flag each.

    `tasks` are pairs (task, folder), packed in this order, in place of `task` and `data`. See also
    `opening.open_pack` of `adopt`, `base.reused` of `reuse`, `rates.pruning` of `gradual` and
    `rates.factors` of `scale_rate`.

    Raises:
        ValueError: some do not go together.
    """

    pack: str = setting(dataclasses.MISSING, "The pack, a .keras file; made if missing.")
    task: str | None = setting(None, "Name of the new task.")
    data: str | None = setting(None, "Folder of the task's images.")
    tasks: tuple[tuple[str, str], ...] = setting(
        (), "Instead of --task and --data, several: NAME:DIR,NAME:DIR."
    )
    trunk: str | None = setting(
        None,
        "For a new pack: a .keras model, or the name of a keras.applications model (MobileNetV2).",
    )
    trunk_output: str | None = setting(
        None,
        "For a new pack: the layer whose output are the features, to leave out the model's own "
        "head.",
    )
    trunk_weights: str = setting(
        "imagenet", "For a new pack of a keras.applications model: imagenet, none, or a path."
    )
    pixel_scale: str | None = setting(
        None,
        "For a new pack: which pixel values the trunk wants: unit 0 to 1, bytes 0 to 255, "
        "symmetric -1 to 1, torch or caffe as for ImageNet models from there. Known for "
        "keras.applications, in files too, and for networks that scale them themselves; default "
        "for other files: unit.",
        choices=SCALES,
    )
    image_size: int | None = setting(None, "For a new pack: height and width in pixels.", least=8)
    biases: str | None = setting(
        None,
        "For a new pack: biases train with the first task (shared, the default) or per task.",
        choices=("shared", "per_task"),
    )
    norms: str | None = setting(
        None,
        "For a new pack: the same for normalisation; default per_task.",
        choices=("shared", "per_task"),
    )
    restart: str | None = setting(
        None,
        "For a new pack: what freed weights restart from; default zero beside an adopted trunk, "
        "else trunk, the values it came with.",
        choices=("trunk", "zero", "fresh"),
    )
    precision: str | None = setting(
        None,
        "For a new pack: what layers compute in; weights are float32. Default: float32, for a "
        ".keras trunk what it computes in.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    adopt: str = setting(
        "auto",
        "For a new pack: the name to keep the pretrained trunk under, as a first task that all "
        "others see, pruned a little and repaired on images of the first --data. auto: base, where "
        "the trunk is pretrained. none: the first task may change the whole trunk.",
    )
    adopt_ratio: float = setting(
        0.3, "Fraction of the adopted trunk to release for tasks.", least=0, most=1
    )
    adopt_epochs: int = setting(2, "Epochs of its repair.", least=0)
    reuse: str = setting(
        "auto",
        "Which earlier tasks' weights a task sees: all, none, or names with commas between them. "
        "auto: the adopted trunk's alone, so that no task depends on another; all where there is "
        "none.",
    )
    prune_ratio: float = setting(0.75, "Fraction of the claim to release, 0 to 1.", least=0, most=1)
    prune: str = setting(
        "ratio",
        "How much to prune: ratio (--prune_ratio), auto (as far as --max_drop allows), "
        "equal_shares, or ratios, one per task: 0.5,0.75,0.",
    )
    gradual: bool = setting(
        True,
        "Prune a little at a time, from an eighth to three quarters of the way to --prune_epoch, "
        "which keeps more accuracy; --nogradual prunes at once at --prune_epoch, as in the paper.",
    )
    scale_rate: bool = setting(
        True,
        "With norms per task: raise both rates where a task trains a part of the weights, so that "
        "it learns as fast as a whole network; by twice beside an adopted trunk, and with SGD for "
        "half of the weights or less. A random head begins that much smaller.",
    )
    max_drop: float = setting(
        0.01,
        "For --prune=auto: how far validation accuracy may fall; 0.01 is one percent point.",
        least=0,
        most=1,
    )
    claim_ratio: float = setting(
        1.0, "Fraction of the free weights a task claims.", least=0, most=1
    )
    decay: bool = setting(True, "Lower both rates to a tenth, along a cosine.")
    accumulation: int = setting(1, "Batches whose gradients make one update.", least=1)
    jit_compile: str = setting("auto", "XLA; auto: with a GPU only.", choices=("auto", "on", "off"))
    seed: int = setting(0, "Of weights, shuffling and augmentation.")
    fresh: bool = setting(False, "Start over instead of continuing an interrupted run.")

    def __post_init__(self) -> None:
        if self.prune_epoch is None:
            turn = min(round(self.epochs * 2 / 3), self.epochs - 1)
            object.__setattr__(self, "prune_epoch", turn)
        if self.prune_epoch >= self.epochs:
            raise ValueError(
                f"--prune_epoch={self.prune_epoch} is not below --epochs={self.epochs}: the task "
                "would never be pruned. --epochs counts the epochs after the prune too."
            )
        if not self.pack.endswith(".keras"):
            raise ValueError(
                f"--pack={self.pack} is to be a .keras file; write --pack={self.pack}.keras."
            )
        ratios, count = self.ratios(), len(self.pairs())
        if ratios is not None and len(ratios) != count:
            raise ValueError(f"--prune has {len(ratios)} ratios for {count} tasks; give one each.")

    def pairs(self) -> list[tuple[str, str]]:
        """The tasks and their folders, in order."""
        return list(self.tasks) or [(self.task, self.data)]

    def ratios(self) -> list[float] | None:
        """The ratios that `prune` lists; None where it is one of `WAYS`."""
        if self.prune in WAYS:
            return None
        try:
            ratios = [float(ratio) for ratio in self.prune.split(",")]
        except ValueError:
            raise ValueError(
                f"--prune={self.prune} is none of the ways to prune; write --prune=auto, "
                "--prune=equal_shares, or ratios, --prune=0.5,0.75,0."
            ) from None
        return [check_ratio(ratio) for ratio in ratios]
