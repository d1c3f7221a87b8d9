"""compare packing with separate networks and other baselines, on your tasks or the paper's.

FILE is a YAML file with a trunk, tasks (folders of images) and methods: packnet in any variant,
individual networks, classifier_only, fine_tuning, lwf (learning without forgetting), joint, and the
rivals batchnorm_only, lora, piggyback, supsup, wsn and cpg (docs/guides/compare.md). Every method
starts from the same trunk and gets the same images, schedule and seeds. All choices are made on
validation images, never on test images. To continue an interrupted comparison, repeat the command;
finished runs are not repeated. Results: report.html, results.json, results.csv.

The name of a recipe of the paper, such as paper/vgg16, can replace the file; --recipes lists them.

Example:
  packnet compare --file=tasks.yaml --output=runs/compare --dry_run
  packnet compare --file=tasks.yaml --output=runs/compare --jobs=2
  packnet compare --file=paper/vgg16 --data=DATA --output=runs/vgg16
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
    "jobs", 1, "Runs at once; they share the processors or the GPU.", 1, flag_values=FLAGS
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
    if values.dry_run:
        cli.start_keras()
        from packnet_tf.apps.research.running.estimate import estimate

        print(estimate(comparison, found, runs, output / "runs", values.jobs))
        return
    _work(values, comparison, found, runs, output)


def _work(values, comparison, found, runs, output: pathlib.Path) -> None:
    from packnet_tf.apps.research.results.report import write_report
    from packnet_tf.apps.research.running.queue import work_off

    try:
        outcome = work_off(runs, output / "runs", values.jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Repeat the command to continue.") from None
    print(write_report(comparison, found, output))
    if outcome.failed:
        raise RuntimeError(
            f"{len(outcome.failed)} of {len(runs)} runs failed; the others are in the report. "
            "Repeat the command to try them again"
        )
