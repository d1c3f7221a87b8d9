"""Executes one run: `python -m packnet_tf.apps.research.running.worker FOLDER`.

FOLDER holds `run.json`. The result is written to `result.json` beside it, a dict of

  validation, test     accuracies, 0 to 1; after each task, a row for the tasks so far; a single
                       row for methods without an order
  seconds              seconds of training, by task
  bytes                bytes on disk that the method needs for all tasks
  task_bytes           the part of these that is the tasks' own, for methods that share the rest
  one_network_bytes, network_per_task_bytes
                       bytes on disk of one plain network, and of one per task
  linear_heads         for tasks whose linear head is in place of what was trained, `BETTER` or
                       `DIVERGED`, see `definition.py`
  ratios, moments, capacity
                       for packing only: released share of the claim, accuracy on validation images
                       around the prune, and each task's share of every layer
"""

import json
import pathlib
import sys
import traceback

from packnet_tf.apps import cli
from packnet_tf.apps.research.definition import RIVALS
from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.writers import locked

RUN, RESULT, ERROR = "run.json", "result.json", "error.txt"
BUSY = 75  # exit status: another process is at work on the run
PROGRESS = "training_*.npz"  # progress files of plain networks, one per task


def work(folder: pathlib.Path) -> dict:
    """Executes or resumes the run of a folder; saves and returns its result."""
    from packnet_tf.apps.research.methods.distillation import distil
    from packnet_tf.apps.research.methods.individual import train_own
    from packnet_tf.apps.research.methods.job import Job
    from packnet_tf.apps.research.methods.joint import learn_together
    from packnet_tf.apps.research.methods.packed import pack_tasks
    from packnet_tf.apps.research.methods.plain import (
        follow_guide,
        learn_in_sequence,
        train_everything,
        train_head,
    )
    from packnet_tf.apps.research.methods.rivals.learning import learn_rival
    from packnet_tf.apps.research.runs import Run

    methods = {
        "packnet": pack_tasks,
        "individual": lambda job: learn_in_sequence(job, train_own),
        "classifier_only": lambda job: learn_in_sequence(job, train_head),
        "guide": lambda job: learn_in_sequence(job, follow_guide),
        "fine_tuning": lambda job: learn_in_sequence(job, train_everything),
        "lwf": lambda job: learn_in_sequence(job, distil),
        "joint": learn_together,
        **dict.fromkeys(RIVALS, learn_rival),
    }
    if (folder / RESULT).exists():  # another process has finished it
        return json.loads((folder / RESULT).read_text(encoding="utf-8"))
    run = Run.read(folder / RUN)
    result = methods[run.kind](Job(run, folder))
    with replacing(folder / RESULT) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for path in folder.glob(PROGRESS):
        path.unlink()
    return result


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    try:
        with locked(folder / RUN):
            return _worked(folder)
    except BlockingIOError:
        return BUSY


def _worked(folder: pathlib.Path) -> int:
    try:
        cli.start_keras()
        work(folder)
    except Exception as error:
        traceback.print_exc()
        text = str(error) or type(error).__name__
        (folder / ERROR).write_text(text, encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
