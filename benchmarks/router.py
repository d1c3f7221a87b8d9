"""How well a router tells tasks apart, and images of a task that it does not know.

Adopts a pretrained trunk as the base of a pack, fits a router on the training and validation
images of each folder, and measures it on the test images. Then each task in turn is the one that
the router has never seen: the area under the ROC curve (AUROC) says how well the largest score
tells its images from those of the others.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

from benchmarks.command import machine, trunk_parser
from packnet_tf.apps import cli
from packnet_tf.reporting.tables import text_table

BATCH = 64
GOALS = {"routed right": 0.97, "AUROC": 0.95}


def read_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the flags; default those of the process."""
    parser = trunk_parser("router", __doc__)
    flag = parser.add_argument
    flag("--tasks", help="only these folders, separated by commas")
    flag("--images", type=int, help="at most so many training images per task")
    flag("--seed", type=int, default=0, help="of the choice of these images")
    flag("--prune", type=float, default=0.0, help="share of the base to prune, without repair")
    return parser.parse_args(arguments)


def main() -> None:
    flags = read_flags()
    cli.start_keras()
    began = time.perf_counter()
    router, features = fit(flags)
    found = {
        "settings": settings(flags),
        "machine": machine(),
        "seconds": round(time.perf_counter() - began, 1),
        "bytes": router.storage(),
        **measure(dict(zip(router.tasks, router.gaussians, strict=True)), features),
    }
    show(found)
    if flags.json:
        flags.json.write_text(f"{json.dumps(found, indent=1)}\n", encoding="utf-8")


def settings(flags: argparse.Namespace) -> dict:
    """Returns the flags that change the results; of files, the names."""
    found = {key: value for key, value in vars(flags).items() if key not in ("data", "json")}
    return {**found, "trunk": pathlib.Path(flags.trunk).name}


def fit(flags: argparse.Namespace):
    """Returns a router for the tasks of a folder, and the features of their test images by task."""
    import keras

    import packnet_tf
    from packnet_tf.apps.images.folders import read_folder, shuffled
    from packnet_tf.apps.images.pipeline import Pipeline
    from packnet_tf.apps.images.trunks import load_trunk

    trunk = load_trunk(flags.trunk, flags.image_size, flags.trunk_output)
    net, features = packnet_tf.PackNet(trunk), {}
    net.adopt("base", flags.prune)
    names = flags.tasks.split(",") if flags.tasks else None
    for folder in sorted(path for path in flags.data.iterdir() if path.is_dir()):
        if names is None and not (folder / "train").is_dir():
            continue
        if names is None or folder.name in names:
            net.add_task(folder.name, keras.layers.Dense(2), overlay=0.01)  # its head is not used
            net.prune(1.0)
            net.commit()
    router = packnet_tf.TaskRouter(net)
    pipeline = Pipeline(trunk.input_shape[1:], BATCH, 0, cache=False)
    for name in net.tasks[1:]:
        print(f"reading {name}", file=sys.stderr, flush=True)
        files = read_folder(flags.data / name).files
        train = shuffled(files["train"], flags.seed)[: flags.images]
        validation = files["validation"] if flags.images is None else None  # else a fifth of these
        held_out = None if validation is None else pipeline.evaluation(validation)
        router.add(name, pipeline.evaluation(train), held_out)
        features[name] = router.features.predict(pipeline.evaluation(files["test"]), verbose=0)
    return router, features


def measure(gaussians: dict, features: dict[str, np.ndarray]) -> dict:
    """Measures routing, and the detection of each task when the router does not know it.

    Args:
        gaussians: those of a router, by task.
        features: of test images, by task.

    Returns:
        A dict by `tasks`, of dicts: `routed right`, with `rejected` images counted as right if the
        largest score names their task; `rejected`, the share below the threshold; `AUROC` and
        `told as none`, of the task as the unknown one. And `mean`, over tasks.
    """
    from packnet_tf.routing.gaussians import log_likelihoods, scores_of

    likelihoods = {
        name: log_likelihoods(values, list(gaussians.values())) for name, values in features.items()
    }

    def scores(name: str, known: list[str]) -> np.ndarray:
        columns = [list(gaussians).index(each) for each in known]
        return scores_of(likelihoods[name][:, columns], [gaussians[each] for each in known])

    tasks = {}
    for place, name in enumerate(gaussians):
        own = scores(name, list(gaussians))
        others = [each for each in gaussians if each != name]
        unknown = scores(name, others).max(axis=1)
        known = np.concatenate([scores(each, others).max(axis=1) for each in others])
        tasks[name] = {
            "images": len(own),
            "routed right": float((own.argmax(axis=1) == place).mean()),
            "rejected": float((own.max(axis=1) < 0).mean()),
            "AUROC": auroc(known, unknown),
            "told as none": float((unknown < 0).mean()),
        }
    means = {
        key: float(np.mean([entry[key] for entry in tasks.values()]))
        for key in ("routed right", "rejected", "AUROC", "told as none")
    }
    return {"tasks": tasks, "mean": means}


def auroc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Returns the chance that a number of the one sample is above one of the other; ties are half.

    Example:
        >>> auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
        0.875
    """
    ordered = np.sort(lower)
    below = np.searchsorted(ordered, higher, "left") + np.searchsorted(ordered, higher, "right")
    return float(below.mean() / 2 / len(lower))


def show(found: dict) -> None:
    """Prints the results of `measure` as a table, and whether the goals are reached."""
    rows = [
        [name, str(entry["images"]), *_percent(entry), str(found["bytes"][name])]
        for name, entry in found["tasks"].items()
    ]
    rows.append(["mean", "", *_percent(found["mean"]), ""])
    head = ["task", "test images", "routed right", "rejected", "AUROC unknown", "told as none"]
    print(text_table([*head, "bytes"], rows, total=1))
    for what, goal in GOALS.items():
        verdict = "reached" if found["mean"][what] >= goal else "MISSED"
        print(f"{what}: {found['mean'][what]:.4f}, goal {goal}: {verdict}")
    print(f"{found['machine']['cpu']}; {found['seconds']} s")


def _percent(entry: dict) -> list[str]:
    auc = f"{entry['AUROC']:.4f}"
    right, rejected, told = (
        f"{entry[key]:.1%}" for key in ("routed right", "rejected", "told as none")
    )
    return [right, rejected, auc, told]


if __name__ == "__main__":
    main()
