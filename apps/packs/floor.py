"""What happens to a task that ends below its linear head.

A task with weights of its own is tried with an overlay, which can change any weight. One that is
still below the head, or diverges then, becomes that head.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

import packnet_tf
from packnet_tf.apps.packs.beginning import Beginning, Images, linear_head_of
from packnet_tf.training.overlay_search import largest_share

# Keys of what a task's preparation remembers from `Floor.retry`.
OVERLAY = "overlay"  # the overlay to try
HEAD = "head"  # whether to train nothing, for `Floor.hold` to pack the head


@dataclasses.dataclass(frozen=True)
class Floor:
    """What a linear head on the committed weights reaches, and how to get it again.

    Attributes:
        task: the task.
        begun: what it began with.
        images: its data.
        overlay: the overlay to try before the task becomes the head; None: none.
        memory: what its preparation remembered; with `OVERLAY`, it is tried with an overlay.
    """

    task: packnet_tf.Task
    begun: Beginning
    images: Images
    overlay: float | None = None
    memory: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def retry(self, net: packnet_tf.PackNet, entry: dict) -> dict | None:
        """Returns what to prepare the task with to pack it in another way, and says why.

        Args:
            net, entry: as for `PendingTask.retry`.
        """
        if entry.get("diverged"):
            if OVERLAY not in self.memory:  # an error: the user is to lower the rate
                return None
            tried = {OVERLAY: self.memory[OVERLAY], "statistics": self.begun.statistics}
            return {**tried, HEAD: True}
        if self.overlay is None or not self._is_below(net):
            return None
        print(
            f"{self.task.name}: with weights of its own, training ended at "
            f"{self._trained(net):.1%} of validation images, below the linear head, "
            f"{self.begun.kept_head:.1%}. Once more, overriding {self.overlay:.0%} of all packed "
            "weights with values of its own; --overlay=none prevents it.",
            flush=True,
        )
        return {OVERLAY: self.overlay}

    def _trained(self, net: packnet_tf.PackNet) -> float:
        return net.results(self.task.name).get("retrained", 1.0)

    def _is_below(self, net: packnet_tf.PackNet) -> bool:
        return is_below(self._trained(net), self.begun.kept_head)

    def hold(self, net: packnet_tf.PackNet, entry: dict) -> None:
        """Replaces a committed task that is below the floor by the linear head, and says so.

        Args:
            net: the pack; the task is its last one.
            entry: the task's entry in the history, corrected in place; see `PendingTask.finish`.
        """
        if not (self.memory.get(HEAD) or self._is_below(net)):
            return
        task, trained = self.task, self._trained(net)
        how = f"training ended at {trained:.1%} of validation images, below the linear head"
        if self.memory.get(HEAD):
            how = "with an overlay, training diverged"
        net.release(task.name)
        head, reached = linear_head_of(net, self.images, "trunk", task.reuse, free=False)
        net.add_task(
            task.name,
            head,
            task.classes,
            statistics="trunk",
            reuse=task.reuse,
            overlay=largest_share(task.overlay),
        )
        net.prune(1.0)
        net.commit()
        print(
            f"{task.name}: {how}, so the task is a linear head on the pack's frozen weights, "
            f"{reached:.1%} of validation images right, and takes none of the free weights. For "
            "more, see docs/guides/low_accuracy.md.",
            flush=True,
        )
        entry |= {"before_prune": {}, "after_prune": {}, "retrained": {"accuracy": reached}}
        if task.test is not None:
            entry["test"] = {"accuracy": accuracy_on(net.task_model(task.name), task.test)}
        entry |= {"prune_ratio": 1.0, "capacity": net.capacity().free, "linear_head_kept": True}


def as_tried(task: packnet_tf.Task, memory: Mapping[str, Any]) -> packnet_tf.Task:
    """Returns a task as it is to be trained: not at all if it is to become its linear head.

    Args:
        task: the task.
        memory: as for `Floor`.
    """
    if not memory.get(HEAD):
        return task
    return dataclasses.replace(task, epochs=0, retrain_epochs=0)


def is_below(trained: float, head: float) -> bool:
    """Returns whether an accuracy of Keras is below another one, both 0 to 1.

    Keras computes in float32, where 83 of 100 is 0.82999998: less than the 0.83 of Python.

    Args:
        trained: what training reached.
        head: what the linear head reaches.

    Example:
        >>> is_below(0.8299999833106995, 0.83)
        False
    """
    return trained < head - 1e-6


def accuracy_on(model: keras.Model, data) -> float:
    """Returns the share of a dataset's examples that a model gets right."""
    labels = np.concatenate([labels.numpy() for _, labels in data])
    return float(np.mean(model.predict(data, verbose=0).argmax(-1) == labels))
