"""One task of `packnet train`: turns a folder of images into a task for `PackTrainer`."""

import dataclasses

import numpy as np

import packnet_tf
from packnet_tf.apps.images.folders import Folder, shuffled
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.base import BASE_IMAGES, adopt, coming_base, optimizer_name, reused
from packnet_tf.apps.packs.beginning import Images, begin, keep_linear_head
from packnet_tf.apps.packs.opening import pixel_range
from packnet_tf.apps.packs.plan import Plan


@dataclasses.dataclass
class Job:
    """A task that is prepared when its turn comes; see `packnet_tf.PendingTask`.

    Attributes:
        plan: the settings of the command.
        name: name of the task.
        folder: its images.
        prune: its ratio or `Auto`, see `rates.pruning`.
    """

    plan: Plan
    name: str
    folder: Folder
    prune: object

    def pending(self) -> packnet_tf.PendingTask:
        """Returns the task in the form that `PackTrainer` takes."""
        return packnet_tf.PendingTask(self.name, self.prepare, self.finish)

    def prepare(self, net, memory: dict) -> packnet_tf.Task:
        """Reads the images, adopts the base if the pack is to get one, and fits the head."""
        plan, folder = self.plan, self.folder
        pipeline = Pipeline(
            net.state.trunk.input_shape[1:],
            plan.batch_size,
            plan.seed,
            plan.cache,
            pixel_range(net, plan.pack),
        )
        # Shuffled: batches of a single class would give useless statistics for normalisation.
        files = {split: shuffled(found, plan.seed) for split, found in folder.files.items()}
        sets = {split: pipeline.evaluation(found) for split, found in files.items()}
        training = pipeline.training(folder.files["train"], plan.flip, plan.crop)
        if coming_base(net):
            images = pipeline.evaluation(files["train"][:BASE_IMAGES])
            adopt(net, coming_base(net), images, plan.adopt_ratio, plan.adopt_epochs)
        optimizer = optimizer_name(net, plan.optimizer)
        factors = rates.factors(
            net, optimizer, self.prune, plan.gradual, plan.claim_ratio, plan.scale_rate
        )
        # A second dataset: a pass over the training's would change the order of its epochs, which
        # a resumed run must reproduce.
        self._images = Images(
            sets["train"],
            pipeline.training(folder.files["train"], plan.flip, plan.crop),
            sets["validation"],
            len(folder.classes),
        )
        self._reuse = reused(net, plan.reuse)
        begun = begin(
            net, self.name, self._images, rates.optimizer(optimizer, plan.accumulation),
            plan.learning_rate * factors[0], factors[0], self._reuse, memory.get("statistics"),
        )  # fmt: skip
        memory["statistics"] = begun.statistics
        self._floor, self._test = begun.kept_head, sets.get("test")
        return packnet_tf.Task(
            self.name, begun.head, training, sets["validation"], self._test, folder.classes,
            plan.claim_ratio, begun.statistics, self._reuse, begun.reference,
            tuple(factor * begun.rate_factor for factor in factors),
        )  # fmt: skip

    def finish(self, net, entry: dict) -> None:
        """Replaces a task that came out below a linear head by that head, and warns about it."""
        trained = net.results(self.name).get("retrained", 1.0)
        if trained >= self._floor:
            return
        reached = keep_linear_head(net, self.name, self._images, self.folder.classes, self._reuse)
        print(
            f"{self.name}: training ended at {trained:.1%} of validation images, below the linear "
            f"head, so the task is that head on the pack's frozen weights, {reached:.1%}, and "
            "takes none of the free ones. For more, see docs/low_accuracy.md.",
            flush=True,
        )
        entry |= {"before_prune": {}, "after_prune": {}, "retrained": {"accuracy": reached}}
        if self._test is not None:
            entry["test"] = {"accuracy": accuracy_on(net.task_model(self.name), self._test)}
        entry |= {"prune_ratio": 1.0, "capacity": net.capacity().free, "linear_head_kept": True}


def accuracy_on(model, data) -> float:
    """Returns the accuracy of a model on a dataset, 0 to 1."""
    labels = np.concatenate([labels.numpy() for _, labels in data])
    return float(np.mean(model.predict(data, verbose=0).argmax(-1) == labels))
