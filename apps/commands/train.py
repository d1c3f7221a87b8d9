"""train tasks on folders of images and add them to a pack.

The first call makes the pack from a trunk; later calls add tasks to it. A task's folder is
{train,validation,test}/<class>/<image>, of which validation and test are optional, or
<class>/<image>. What is left out of it is said. Interrupted, the same command continues.

Example:
  packnet train garden.keras --task=flowers --data=flowers/ --trunk=MobileNetV2 \\
      --image-size=96 --epochs=15
  packnet train garden.keras --task=leaves --data=leaves/
  packnet train shop.keras --tasks=shoes:shoes/,hats:hats/,bags:bags/ \\
      --trunk=MobileNetV2 --image-size=96 --prune=equal_shares
"""

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.images.folders import read_folders
from packnet_tf.packing.pruning import check_ratio

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("pack",)
MAIN = ("pack", "task", "data", "trunk", "image_size", "epochs")
flags.DEFINE_string("pack", None, "The pack, a .keras file; made if missing.", flag_values=FLAGS)
flags.DEFINE_string("task", None, "Name of the new task.", flag_values=FLAGS)
flags.DEFINE_string("data", None, "Folder of the task's images.", flag_values=FLAGS)
flags.DEFINE_list(
    "tasks", [], "Instead of --task and --data, several: NAME:DIR,NAME:DIR.", flag_values=FLAGS
)
flags.DEFINE_string(
    "trunk",
    None,
    "For a new pack: a .keras model, or the name of a keras.applications model (MobileNetV2).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "trunk_output",
    None,
    "For a new pack: the layer whose output are the features, to leave out the model's own head.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "trunk_weights",
    "imagenet",
    "For a new pack of a keras.applications model: imagenet, none, or a path.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "pixel_scale",
    None,
    ["unit", "bytes", "symmetric", "torch", "caffe"],
    "For a new pack: which pixel values the trunk wants: unit 0 to 1, bytes 0 to 255, symmetric "
    "-1 to 1, torch or caffe as for ImageNet models from there. Known for keras.applications, in "
    "files too, and for networks that scale them themselves; default for other files: unit.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "image_size", None, "For a new pack: height and width in pixels.", 8, flag_values=FLAGS
)
flags.DEFINE_enum(
    "biases",
    None,
    ["shared", "per_task"],
    "For a new pack: biases train with the first task (shared, the default) or per task.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "norms",
    None,
    ["shared", "per_task"],
    "For a new pack: the same for normalisation; default per_task.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "restart",
    None,
    ["trunk", "zero", "fresh"],
    "For a new pack: what freed weights restart from; default zero beside an adopted trunk, else "
    "trunk, the values it came with.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "epochs", 15, "All epochs, those after the prune included.", 1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "prune_epoch",
    None,
    "The epoch whose start ends the pruning and begins the retraining; default two thirds of "
    "--epochs.",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "prune_ratio", 0.75, "Fraction of the claim to release, 0 to 1.", 0, 1, flag_values=FLAGS
)
flags.DEFINE_string(
    "prune",
    "ratio",
    "How much to prune: ratio (--prune_ratio), auto (as far as --max_drop allows), equal_shares, "
    "or ratios, one per task: 0.5,0.75,0.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "gradual",
    True,
    "Prune a little at a time, from an eighth to three quarters of the way to --prune_epoch, which "
    "keeps more accuracy; --nogradual prunes at once at --prune_epoch, as in the paper.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_drop",
    0.01,
    "For --prune=auto: how far validation accuracy may fall; 0.01 is one percent point.",
    0,
    1,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "claim_ratio", 1.0, "Fraction of the free weights a task claims.", 0, 1, flag_values=FLAGS
)
flags.DEFINE_string(
    "adopt",
    "auto",
    "For a new pack: the name to keep the pretrained trunk under, as a first task that all others "
    "see, pruned a little and repaired on images of the first --data. auto: base, where the trunk "
    "is pretrained. none: the first task may change the whole trunk.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "adopt_ratio", 0.3, "Fraction of the adopted trunk to release for tasks.", 0, 1,
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer("adopt_epochs", 2, "Epochs of its repair.", 0, flag_values=FLAGS)
flags.DEFINE_string(
    "reuse",
    "auto",
    "Which earlier tasks' weights a task sees: all, none, or names with commas between them. auto: "
    "the adopted trunk's alone, so that no task depends on another; all where there is none.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("batch_size", 32, "Images per step.", 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "optimizer",
    "auto",
    ["auto", "sgd", "adam", "adamw"],
    "auto: adam for tasks beside an adopted trunk, which train few weights, and sgd for others. "
    "SGD has momentum 0.9.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "learning_rate",
    0.003,
    "At the start of training; see --scale_rate.",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "scale_rate",
    True,
    "With norms per task: raise both rates where a task trains a part of the weights, so that it "
    "learns as fast as a whole network; by twice beside an adopted trunk, and with SGD for half of "
    "the weights or less. A random head begins that much smaller.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "retrain_learning_rate",
    None,
    "After the prune; default a tenth of --learning_rate.",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "decay", True, "Lower both rates to a tenth, along a cosine.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "accumulation", 1, "Batches whose gradients make one update.", 1, flag_values=FLAGS
)
flags.DEFINE_enum(
    "precision",
    None,
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "For a new pack: what layers compute in; weights are float32. Default: float32, for a .keras "
    "trunk what it computes in.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored", "multi_worker"],
    "Devices: one; all GPUs here; or the hosts that the TF_CONFIG of each names.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("flip", False, "Augment by mirroring left to right.", flag_values=FLAGS)
flags.DEFINE_boolean("crop", True, "Augment by padding and random crops.", flag_values=FLAGS)
flags.DEFINE_float(
    "validation_share",
    0.1,
    "Share of the training images to validate on where there is no validation folder.",
    0.001,
    0.9,
    flag_values=FLAGS,
)
flags.DEFINE_boolean("cache", True, "Keep decoded images in memory.", flag_values=FLAGS)
flags.DEFINE_enum(
    "jit_compile", "auto", ["auto", "on", "off"], "XLA; auto: with a GPU only.", flag_values=FLAGS
)
flags.DEFINE_integer("seed", 0, "Of weights, shuffling and augmentation.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "fresh", False, "Start over instead of continuing an interrupted run.", flag_values=FLAGS
)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if values.prune_epoch is None:
        values.prune_epoch = min(round(values.epochs * 2 / 3), values.epochs - 1)
    if values.prune_epoch >= values.epochs:
        raise cli.UsageError(
            f"--prune_epoch={values.prune_epoch} is not below --epochs={values.epochs}: the task "
            "would never be pruned. --epochs counts the epochs after the prune too"
        )
    if not values.pack.endswith(".keras"):
        raise cli.UsageError(
            f"--pack={values.pack} is to be a .keras file; write --pack={values.pack}.keras"
        )
    for name in ("trunk_output", "trunk_weights", "pixel_scale"):
        if values[name].present and values.trunk is None:
            raise cli.UsageError(f"--{name} says how to read --trunk, which is missing")
    pairs = _pairs(values)
    _check_prune(values.prune, len(pairs) or 1)
    tasks = pairs or ((values.task, values.data),)
    print(f"Packing {', '.join(name for name, _ in tasks)} into {values.pack} ...", flush=True)
    folders = read_folders(tasks, values.validation_share, values.seed)  # before slow imports
    cli.start_keras()
    from packnet_tf.apps.packs.strategies import chosen_strategy
    from packnet_tf.apps.packs.training import Plan, train_all

    settings = {**values.flag_values_dict(), "tasks": pairs}
    fields = Plan.__dataclass_fields__
    with chosen_strategy(values.strategy):
        reports = train_all(
            Plan(**{name: value for name, value in settings.items() if name in fields}), folders
        )
    for report in reports:
        print()
        print(report)


def _pairs(values: flags.FlagValues) -> tuple[tuple[str, str], ...]:
    """The pairs of --tasks; empty where --task and --data say it."""
    if not values.tasks:
        for name in ("task", "data"):
            if values[name].value is None:
                raise cli.UsageError(f"--{name} is missing")
        return ()
    if values.task or values.data:
        raise cli.UsageError("--tasks goes without --task and --data")
    pairs = tuple(tuple(text.split(":", 1)) for text in values.tasks)
    for pair, text in zip(pairs, values.tasks, strict=True):
        if len(pair) != 2 or not all(pair):
            raise cli.UsageError(f"--tasks has '{text}'; expected NAME:DIR,NAME:DIR")
    return pairs


def _check_prune(text: str, tasks: int) -> None:
    if text in ("ratio", "auto", "equal_shares"):
        return
    try:
        ratios = [float(ratio) for ratio in text.split(",")]
    except ValueError:
        raise cli.UsageError(
            f"--prune={text} is none of the ways to prune; write --prune=auto, "
            "--prune=equal_shares, or ratios, --prune=0.5,0.75,0"
        ) from None
    if len(ratios) != tasks:
        raise cli.UsageError(f"--prune has {len(ratios)} ratios for {tasks} tasks; give one each")
    with cli.as_usage():
        for ratio in ratios:
            check_ratio(ratio)
