"""compare packing with separate networks and other baselines, on your tasks or the paper's.

FILE is a YAML file with a trunk, tasks (folders of images) and methods: packnet in any variant,
individual networks, classifier_only, guide (transfer learning as in Keras's guide), fine_tuning,
lwf (learning without forgetting), joint, and the rivals batchnorm_only, lora, piggyback, supsup,
wsn and cpg (docs/guides/compare.md). Every method starts from the same trunk and gets the same
images, schedule and seeds. All choices are made on validation images, never on test images. To
continue an interrupted comparison, repeat the command; finished runs are not repeated. Several
commands, also of several machines, may share --output: each takes runs that no other is at work on.
Results: report.html, results.json, results.csv.

The name of a recipe of the paper, such as paper/vgg16, can replace the file; --recipes lists them.

Example:
  packnet compare --file=tasks.yaml --output=runs/compare --dry_run
  packnet compare --file=tasks.yaml --output=runs/compare --jobs=2
  packnet compare --file=paper/vgg16 --data=DATA --output=runs/vgg16
  packnet compare --file=tasks.yaml --engine=slurm --slurm=timeout_min=240
"""

import pathlib

from absl import flags

from packnet_tf.apps import cli

NEEDS = (("yaml", "pyyaml"), ("matplotlib", "matplotlib"))
FLAGS = cli.new_flags()
flags.DEFINE_string("file", None, "The YAML file, or the name of a recipe.", flag_values=FLAGS)
flags.DEFINE_string(
    "data",
    None,
    "Folder that relative paths in the file start from; default: the file's folder, or the current "
    "one for a recipe.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output", "runs/compare", "Folder for runs, results and the report.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "jobs",
    None,
    "Runs at once; they share the processors, and each has one GPU. Default: one per GPU that "
    "CUDA_VISIBLE_DEVICES or nvidia-smi names, else one; all with --engine=slurm.",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "engine",
    "local",
    ("local", "slurm"),
    "What executes the runs: processes of this machine, or jobs of a Slurm cluster, which needs "
    "submitit.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "slurm",
    [],
    "Settings of the jobs, NAME=VALUE,..., by submitit's names: "
    "timeout_min=240,slurm_partition=gpu,gpus_per_node=1. timeout_min, the most that a run may "
    "take, is needed.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "dry_run",
    False,
    "Check all folders, time a step, and print what would run and how long; train nothing.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("recipes", False, "List the recipes and leave.", flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    for module, package in NEEDS:  # fail now, and not hours later at the report
        cli.need(module, package)
    from packnet_tf.apps.research.config import read_comparison
    from packnet_tf.apps.research.recipes import find_file, recipes_table

    if values.recipes:
        print(recipes_table())
        return
    if values.file is None:
        raise cli.UsageError("--file is missing; --recipes lists those of the paper")
    path, base = find_file(values.file)
    comparison = read_comparison(path, values.data or base)

    from packnet_tf.apps.research.runs import entries

    found = entries(comparison)
    runs = list({run.key: run for entry in found for run in entry.runs}.values())
    output = pathlib.Path(values.output)
    engine = _engine(values, output, len(runs))
    if values.dry_run:
        cli.start_keras()
        from packnet_tf.apps.research.running.estimate import estimate

        print(estimate(comparison, found, runs, output / "runs", engine.jobs))
        return
    _work(engine, comparison, found, runs, output)


def _engine(values, output: pathlib.Path, runs: int):
    """Returns what executes the runs."""
    from packnet_tf.apps.research.running import engines

    if values.engine == "slurm":
        settings = _slurm_settings(values.slurm)
        return engines.Slurm(output / "slurm", settings, values.jobs or max(1, runs))
    if values.slurm:
        raise cli.UsageError("--slurm has no effect without --engine=slurm")
    gpus = engines.visible_gpus()
    return engines.Processes(values.jobs or max(1, len(gpus)), gpus)


def _slurm_settings(given: list[str]) -> dict[str, str | float]:
    settings: dict[str, str | float] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals and value):
            raise cli.UsageError(
                f"--slurm takes NAME=VALUE,...; got '{each}'. Write --slurm=timeout_min=240"
            )
        try:
            settings[name] = int(value) if value.isdigit() else float(value)
        except ValueError:
            settings[name] = value
    if not {"timeout_min", "slurm_time"} & settings.keys():
        raise cli.UsageError(
            "--engine=slurm needs the most minutes that a run may take: --slurm=timeout_min=240"
        )
    return settings


def _work(engine, comparison, found, runs, output: pathlib.Path) -> None:
    from packnet_tf.apps.research.results.report import write_report
    from packnet_tf.apps.research.running.queue import work_off

    try:
        outcome = work_off(runs, output / "runs", engine)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Repeat the command to continue.") from None
    print(write_report(comparison, found, output))
    if outcome.failed:
        raise RuntimeError(
            f"{len(outcome.failed)} of {len(runs)} runs failed; the others are in the report. "
            "Repeat the command to try them again"
        )
