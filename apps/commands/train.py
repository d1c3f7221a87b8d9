"""train tasks on folders of images and add them to a pack.

The first call makes the pack from a trunk; later calls add tasks to it. A task's folder is
{train,validation,test}/<class>/<image>, of which validation and test are optional, or
<class>/<image>. Files that are skipped are reported. To continue an interrupted run, repeat the
command.

Example:
  packnet train garden.keras --task=flowers --data=flowers/ \\
      --trunk=MobileNetV2 --image-size=96 --epochs=15
  packnet train garden.keras --task=leaves --data=leaves/
  packnet train shop.keras --tasks=shoes:shoes/,hats:hats/,bags:bags/ \\
      --trunk=MobileNetV2 --image-size=96 --prune=equal_shares
"""

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.images.folders import read_folders
from packnet_tf.apps.packs.plan import Plan
from packnet_tf.apps.settings import define_flags

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("pack",)
MAIN = ("pack", "task", "data", "trunk", "image_size", "epochs")
define_flags(Plan, FLAGS)
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored", "multi_worker"],
    "Devices: none: one device; mirrored: all GPUs of this host; multi_worker: the hosts of "
    "TF_CONFIG.",
    flag_values=FLAGS,
)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    for name in ("trunk_output", "trunk_weights", "pixel_scale"):
        if values[name].present and values.trunk is None:
            raise cli.UsageError(f"--{name} says how to read --trunk, which is missing")
    given = {name: values[name].value for name in Plan.__dataclass_fields__}
    with cli.as_usage():
        plan = Plan(**{**given, "tasks": _pairs(values)})
    tasks = plan.pairs()
    print(f"Packing {', '.join(name for name, _ in tasks)} into {plan.pack} ...", flush=True)
    folders = read_folders(tasks, plan.validation_share, plan.seed)  # before slow imports
    cli.start_keras()
    from packnet_tf.apps.packs.opening import chosen_strategy
    from packnet_tf.apps.packs.training import train_all

    with chosen_strategy(values.strategy):
        reports = train_all(plan, folders)
    for report in reports:
        print()
        print(report)


def _pairs(values: flags.FlagValues) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of --tasks; empty if --task and --data are used."""
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
