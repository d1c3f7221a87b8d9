"""show how tasks would divide a trunk, before training any.

Example:
  packnet plan --tasks=6
  packnet plan --ratios=0.5,0.75,0.75
  packnet plan garden.keras --tasks=2
"""

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.packing.pruning import check_ratio
from packnet_tf.planning import equal_shares, plan, plan_table, too_little

FLAGS = cli.new_flags()
POSITIONAL = ("pack",)
flags.DEFINE_integer(
    "tasks", None, "Number of tasks to come; they get equal shares.", 1, flag_values=FLAGS
)
flags.DEFINE_list(
    "ratios",
    None,
    "Instead of --tasks, the prune_ratio of each task, separated by commas.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "pack", None, "Divide the free weights of this pack, not a whole trunk.", flag_values=FLAGS
)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    ratios = _ratios(values)
    if values.tasks is None and ratios is None:
        raise cli.UsageError("say how many tasks are to come, --tasks=6, or --ratios=0.5,0.75,0")
    if None not in (values.tasks, ratios) and values.tasks != len(ratios):
        raise cli.UsageError(f"--tasks={values.tasks} but --ratios has {len(ratios)}; give one")
    free, taken, base = 1.0, 0, None
    if values.pack:
        cli.need_pack(values.pack)
        cli.start_keras()
        import packnet_tf
        from packnet_tf.apps.packs.standing import counted_tasks

        net = packnet_tf.load(values.pack)
        free, taken, whole = net.capacity().free, len(net.tasks), net.capacity().sum()
        base = None if net.base is None else whole["owned"][net.base] / whole["total"]
        held = counted_tasks(taken, net.base)
        print(f"{values.pack}: {held}, {free:.1%} of the packed weights free\n")
    shares = plan(ratios if ratios is not None else equal_shares(values.tasks), free, base)
    print(plan_table(shares, first=taken + 1))
    print("\nShares of all packed weights; every layer divides alike.")
    if base is not None:
        print("A task sees the base and its own weights, as packnet train has it by default.")
    for sentence in too_little(shares, first=taken + 1):
        print(f"WARNING: {sentence}")


def _ratios(values: flags.FlagValues) -> list[float] | None:
    if values.ratios is None:
        return None
    try:
        ratios = [float(text) for text in values.ratios]
    except ValueError as error:
        raise cli.UsageError(f"--ratios takes numbers separated by commas: {error}") from error
    with cli.as_usage():
        return [check_ratio(ratio) for ratio in ratios]
