"""Results of a comparison that was never run."""

import json

import numpy as np

from packnet_tf.apps.research.running.worker import RESULT
from packnet_tf.apps.research.runs import Entry, Run


def run_of(kind, names, seed, **options):
    tasks = tuple({"name": name, "data": "", "digest": "", "settings": {}} for name in names)
    return Run(kind, options, {"digest": "x", "network": ""}, None, seed, tasks)


def keep(folder, run, test, validation=None, **more):
    """Puts a result where a run would have."""
    path = folder / run.key / RESULT
    path.parent.mkdir(parents=True)
    result = {"test": test, "validation": validation or test, "seconds": {"all": 60.0}, **more}
    path.write_text(json.dumps(result))
    return run


def entry(label, runs, order=None, seed=0, candidate=None):
    return Entry(label, candidate or {}, order, seed, tuple(runs))


def many_tasks(folder, names, labels):
    """Puts results of one seed for several packed methods and individual networks.

    Args:
        folder: the folder of runs.
        names: names of the tasks.
        labels: labels of the packed methods.
    """
    rng, found = np.random.default_rng(0), []
    order, count = tuple(names), len(names)
    layers = {
        f"block_{layer}/conv": {
            "total": 1000, "free": 1000 - 90 * count, "claimed": 0,
            "owned": dict.fromkeys(names, 90),
        }
        for layer in range(12)
    }  # fmt: skip
    for place, label in enumerate(labels):
        final = rng.uniform(0.6, 0.95, count)
        moments = {
            name: {"before_prune": value, "after_prune": value - 0.3, "retrained": value}
            for name, value in zip(names, final, strict=True)
        }
        run = keep(
            folder, run_of("packnet", order, 0, place=place),
            [list(final[: n + 1]) for n in range(count)],
            bytes=1_300_000, task_bytes=1000, one_network_bytes=1_000_000,
            network_per_task_bytes=count * 1_000_000,
            ratios=dict(zip(names, rng.uniform(0.3, 0.9, count), strict=True)), moments=moments,
            capacity={"tasks": list(names), "layers": layers},
        )  # fmt: skip
        found.append(entry(label, [run], order))
    runs = [
        keep(
            folder, run_of("individual", [name], 0), [[rng.uniform(0.7, 0.99)]], bytes=1_000_000,
            task_bytes=1000, one_network_bytes=1_000_000, network_per_task_bytes=1_000_000,
        )
        for name in names
    ]  # fmt: skip
    return [*found, entry("individual", runs)]
