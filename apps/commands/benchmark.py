"""measure exported files on this machine, with onnxruntime alone.

Measures size, loading time, memory and latency of every file, and its accuracy on labelled images.
Each file is loaded and run in a process of its own, on random inputs. Needs onnxruntime, numpy and
pillow; TensorFlow is not imported. A folder that packnet export wrote stands for all its tasks.

Example:
  packnet benchmark onnx/
  packnet benchmark onnx/ --data=flowers:photos/flowers,leaves:photos/leaves
  packnet benchmark onnx/model_task3.onnx --batch_sizes=1,32 --threads=1 --json
"""

import contextlib
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Sequence

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.classifier import (
    Classifier,
    NotAClassifierError,
    chosen_provider,
    define_flags,
)
from packnet_tf.apps.device.counter import counted
from packnet_tf.apps.device.evaluation import evaluate, summary
from packnet_tf.apps.device.exported_files import exported_files
from packnet_tf.apps.device.fresh_process import in_fresh_process
from packnet_tf.apps.device.labelled import (
    Labelled,
    define_folders,
    folders_by_task,
    labelled_images,
)
from packnet_tf.apps.device.sessions import open_file
from packnet_tf.apps.device.timing import Timing, measure
from packnet_tf.apps.device.weight_files import weight_files
from packnet_tf.backend.text import listed
from packnet_tf.export.runtime.task_session import tasks_in
from packnet_tf.reporting.tables import count_bytes, text_table

FLAGS = cli.new_flags()
TAKES_ARGUMENTS = True
MAIN = ("data", "task", "batch_sizes", "threads", "provider", "json")
define_folders(
    FLAGS,
    "data",
    "Folder of a task's labelled images, to measure accuracy on (the files of other tasks are "
    "timed only)",
    "all of a folder of classes",
)
flags.DEFINE_list("task", None, "Only these tasks, separated by commas.", flag_values=FLAGS)
flags.DEFINE_list(
    "batch_sizes",
    ["1", "8"],
    "Numbers of examples in a batch, separated by commas. A file that was exported with a fixed "
    "batch size runs with that.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "seconds",
    2.0,
    "How long to run each file with each batch size; at least 3 runs.",
    0.0,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "threads",
    0,
    "Number of threads that compute one operator; 0 for onnxruntime's default.",
    0,
    flag_values=FLAGS,
)
define_flags(FLAGS)
flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=FLAGS)


@dataclasses.dataclass
class File:
    """An exported file and what is measured of it.

    Attributes:
        path: the `.onnx` or `.ort` file.
        tasks: the names of its tasks; "?" if the file of one task does not name it.
        precision: precision by its metadata; None if unknown.
        images: its task's labelled images; None if there are none.
        timing: time and memory; None before they are measured.
        accuracy: images, accuracies and reading errors, for JSON; None without images.
    """

    path: str
    tasks: list[str]
    precision: str | None
    images: Labelled | None = None
    timing: Timing | None = None
    accuracy: dict | None = None

    @property
    def task(self) -> str:
        """The names of its tasks, as they are shown."""
        return ", ".join(self.tasks)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if not arguments:
        raise cli.UsageError("name at least one .onnx file, or a folder of packnet export")
    batch_sizes, provider = _batch_sizes(values.batch_sizes), chosen_provider(values)
    files = opened(arguments, values.task, provider)
    given = (values.pixel_range, values.image_size, provider)
    known = _classes(files, given) if values.data else {}
    tasks = list(dict.fromkeys(file.task for file in files if file.path in known))
    several = [file for file in files if len(file.tasks) > 1]
    if values.data and several:
        raise cli.UsageError(
            f"--data: '{several[0].path}' is of several tasks. Measure the accuracy of one with "
            f"packnet evaluate {several[0].path} --task={several[0].tasks[0]} FOLDER"
        )
    folders = folders_by_task("--data", values.data, tasks)
    for file in files:  # what is wrong with a folder is said before anything is timed
        if file.task in folders and file.path in known:
            file.images = labelled_images(folders[file.task], None, *known[file.path])
            for note in file.images.notes:
                print(note, file=sys.stderr)
    for file in counted(files, "files"):
        file.timing = in_fresh_process(
            measure, file.path, batch_sizes, values.seconds, provider, values.threads,
            values.image_size,
        )  # fmt: skip
        if file.images is not None:
            file.accuracy = _accuracy(Classifier(file.path, *given), file.images)
    weights = weights_of(files)
    machine = _machine(provider, values.threads)
    if values.json:
        print(json.dumps(as_json(files, weights, machine), indent=2))
    else:
        print(as_table(files, weights, machine))
    errors = [text for file in files for text in (file.accuracy or {}).get("errors", [])]
    if errors:
        raise OSError("; ".join(errors))


def _batch_sizes(given: Sequence[str]) -> list[int]:
    sizes = [int(text) for text in given if text.isdecimal() and int(text)]
    if not sizes or len(sizes) < len(given):
        raise cli.UsageError(
            f"--batch_sizes={','.join(given)}: expected whole numbers from 1, separated by commas; "
            "write --batch_sizes=1,8"
        )
    return sizes


def opened(paths: Sequence[str], tasks: Sequence[str] | None, provider: str) -> list[File]:
    """Returns the files to measure, and checks that onnxruntime can open them.

    Args:
        paths: files, or folders of an export.
        tasks: names of the tasks to keep; None or empty for all.
        provider: the execution provider.

    Raises:
        FileNotFoundError: a file, its weights, or a folder's manifest is missing.
        OSError: a file does not match the manifest.
        ValueError: there is no such task, or onnxruntime cannot open a file.
    """
    files, found = [], [file for path in paths for file in exported_files(path, tasks)]
    for path in dict.fromkeys(found):
        opened = open_file(path, provider)
        facts, several = opened.get_modelmeta().custom_metadata_map, tasks_in(opened)
        files.append(File(path, several or [facts.get("task", "?")], facts.get("precision")))
    known = [task for file in files for task in file.tasks]
    unknown = sorted({*(tasks or ())} - {*known})
    if unknown:
        raise ValueError(f"No file is of the task '{unknown[0]}'; their tasks are {listed(known)}.")
    return [file for file in files if not tasks or not {*tasks}.isdisjoint(file.tasks)]


def _classes(files: Sequence[File], given: tuple) -> dict[str, tuple[list[str] | None, int | None]]:
    """Returns the names and the number of the classes of each file that classifies, by its path."""
    found = {}
    for file in files:
        with contextlib.suppress(NotAClassifierError):  # the base of a pack gives features
            model = Classifier(file.path, *given)
            found[file.path] = (model.classes, model.count)
    return found


def _accuracy(model: Classifier, images: Labelled) -> dict:
    answers, scores = evaluate(model, images)
    return {
        "data": str(images.folder),
        "images": len(answers.images),
        **summary(scores),
        "errors": answers.failed,
    }


def weights_of(files: Sequence[File]) -> dict[str, list[File]]:
    """Returns the files of weights beside the `.onnx` files, each with the files that read it."""
    users: dict[str, list[File]] = {}
    for file in files:
        for path in weight_files(file.path):
            users.setdefault(os.fspath(path), []).append(file)
    return users


def _machine(provider: str, threads: int) -> dict:
    import onnxruntime

    return {
        "onnxruntime": onnxruntime.__version__,
        "provider": provider,
        "threads": threads or None,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }


def as_json(files: Sequence[File], weights: dict[str, list[File]], machine: dict) -> dict:
    """Returns the measurements as a dict for JSON; times are in ms, memory and sizes in bytes."""
    found = []
    for file in files:
        timing = file.timing
        found.append(
            {
                "task": file.task,
                "file": file.path,
                "precision": file.precision,
                "bytes": os.path.getsize(file.path),
                "weights": [path for path, users in weights.items() if file in users],
                "load_ms": timing.load,
                "memory_bytes": timing.memory,
                "batches": [
                    {
                        "batch": one.batch,
                        "runs": one.runs,
                        "median_ms": one.median,
                        "p90_ms": one.p90,
                        "images_per_second": one.per_second,
                    }
                    for one in timing.latencies
                ],
                "accuracy": file.accuracy,
            }
        )
    beside = [
        {"file": path, "bytes": os.path.getsize(path), "tasks": [user.task for user in users]}
        for path, users in weights.items()
    ]
    whole = sum(entry["bytes"] for entry in [*found, *beside])
    return {"machine": machine, "files": found, "weights": beside, "bytes": whole}


def as_table(files: Sequence[File], weights: dict[str, list[File]], machine: dict) -> str:
    """Lays out the measurements: a row per file and batch size, then weights and the machine."""
    rows = []
    for file in files:
        timing = file.timing
        cells = [
            file.path,
            file.task,
            count_bytes(os.path.getsize(file.path)),
            f"{timing.load:.0f} ms",
            "" if timing.memory is None else count_bytes(timing.memory),
        ]
        found = "" if file.accuracy is None else f"{file.accuracy['accuracy']:.1%}"
        for one in timing.latencies:
            speed = [f"{one.median:.2f} ms", f"{one.p90:.2f} ms", f"{one.per_second:,.0f}"]
            rows.append([*cells, str(one.batch), *speed, found])
            cells, found = [""] * len(cells), ""
    head = ["file", "task", "size", "load", "memory", "batch", "median", "p90", "images/s"]
    if any(file.accuracy for file in files):
        head.append("accuracy")
    lines = [text_table(head, [row[: len(head)] for row in rows]), ""]
    whole = sum(os.path.getsize(path) for path in [*weights, *(file.path for file in files)])
    for path, users in weights.items():
        tasks = ", ".join(user.task for user in users)
        lines.append(f"Weights: {path} ({count_bytes(os.path.getsize(path))}), read by {tasks}.")
    if len(files) + len(weights) > 1:
        lines.append(f"In all {count_bytes(whole)}.")
    lines.append(
        "onnxruntime {onnxruntime}, {provider}, threads: {threads}; {processor}, {cores} cores, "
        "{system}.".format(**{**machine, "threads": machine["threads"] or "default"})
    )
    return "\n".join(lines)
