"""One task of `packnet train`: turns a folder of images into a task for `PackTrainer`."""

import dataclasses
import math
import os

import numpy as np

import packnet_tf
from packnet_tf.apps.images.folders import Folder, content_digest, shuffled
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.base import (
    BASE_IMAGES,
    adopt,
    coming_base,
    optimizer_name,
    optimizer_of_open,
    reused,
)
from packnet_tf.apps.packs.beginning import Images, begin
from packnet_tf.apps.packs.floor import OVERLAY, Floor, as_tried
from packnet_tf.apps.packs.opening import pixel_range
from packnet_tf.apps.packs.overlay import overlay_after, overlay_of
from packnet_tf.apps.packs.plan import Plan
from packnet_tf.training.class_weights import balanced_weights, count_classes
from packnet_tf.training.overlay_search import largest_share


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
        return packnet_tf.PendingTask(self.name, self.prepare, self.finish, self.retry)

    def prepare(self, net, memory: dict) -> packnet_tf.Task:
        """Reads the images, adopts the base if the pack is to get one, and fits the head."""
        plan, folder = self.plan, self.folder
        self._check_images(memory)
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
            some = pipeline.evaluation(files["train"][:BASE_IMAGES])
            adopt(net, coming_base(net), some, plan.adopt_ratio, plan.adopt_epochs)
        reuse = reused(plan.reuse)
        sees = len(net.state.seen_by_next(reuse)) > 1
        overlay = memory.get(OVERLAY) or overlay_of(
            plan.overlay, self.prune, net.capacity().free, sees, plan.claim_ratio
        )
        if overlay is not None and not plan.all_override and OVERLAY not in memory:
            print(
                f"{self.name}: few packed weights are free, so it overrides {overlay:.0%} of all "
                "with values of its own; see docs/guides/full_pack.md. --overlay=none lets it own "
                "what is left.",
                flush=True,
            )
        factors = rates.factors(
            net,
            optimizer_name(net, plan.optimizer, owns=overlay is None),
            self.prune,
            plan.gradual,
            plan.claim_ratio,
            plan.scale_rate,
            owns=overlay is None,
        )
        # A second dataset: a pass over the training's would change the order of its epochs, which
        # a resumed run must reproduce.
        images = Images(
            sets["train"],
            pipeline.training(folder.files["train"], plan.flip, plan.crop),
            sets["validation"],
            len(folder.classes),
            plan.epochs * math.ceil(len(folder.files["train"]) / plan.batch_size),
            plan.class_weight,
        )
        if pipeline.uncached:
            print(
                f"{self.name}: {pipeline.uncached:,} images are decoded anew in every epoch, since "
                "they would take more than half of the free memory; --cache keeps them.",
                flush=True,
            )
        begun = begin(
            net,
            self.name,
            images,
            optimizer_of_open(net, plan.optimizer, plan.accumulation),
            rate=plan.learning_rate * factors[0],
            factor=factors[0],
            reuse=reuse,
            statistics=memory.get("statistics"),
            overlay=largest_share(overlay),
        )
        memory["statistics"] = begun.statistics
        task = packnet_tf.Task(
            self.name,
            begun.head,
            training,
            sets["validation"],
            sets.get("test"),
            folder.classes,
            claim_ratio=plan.claim_ratio if overlay is None else 1.0,
            statistics=begun.statistics,
            reuse=reuse,
            reference=begun.reference,
            rate_factors=tuple(factor * begun.rate_factor for factor in factors),
            metadata=self._metadata(net),
            class_weight=self._class_weight(),
            overlay=overlay,
            **(rates.of_overlay(plan, decay="cosine" if plan.decay else "none") if overlay else {}),
        )
        fallback = overlay_after(plan.overlay, overlay, sees)
        self._floor = Floor(task, begun, images, fallback, memory)
        return as_tried(task, memory)

    def _check_images(self, memory: dict) -> None:
        """Notes the images of a task that begins; refuses others for one that goes on.

        Raises:
            ValueError: they differ; test images may.
        """
        place = dict(self.plan.pairs())[self.name]
        digest = content_digest(self.folder, place, ("train", "validation"))
        if memory.setdefault("images", digest) != digest:
            raise ValueError(
                f"Since the run of task '{self.name}' was interrupted, '{place}' has changed: it "
                "has other classes, or other images for training and validation. To continue might "
                "validate on images that it was trained on. Bring back the old ones, or add "
                "--fresh to start over with the tasks that are not packed yet."
            )

    def _class_weight(self) -> dict[int, float] | None:
        """Returns the weights of the classes, from the numbers of their training images."""
        if self.plan.class_weight is None:
            return None
        labels = np.array([label for _, label in self.folder.files["train"]])
        weights = balanced_weights(count_classes([labels]))
        named = [f"{self.folder.classes[label]} {weight:.3g}" for label, weight in weights.items()]
        print(f"{self.name}: weights of images by class: {', '.join(named)}", flush=True)
        return weights

    def _metadata(self, net) -> dict:
        """Returns what the pack is to remember of the task's images."""
        return {
            "data": os.path.abspath(dict(self.plan.pairs())[self.name]),
            "images": {split: len(files) for split, files in self.folder.files.items()},
            "image_size": net.state.trunk.input_shape[1:3],
            "pixel_range": net.notes["pixel_range"],
            "epochs": self.plan.epochs,
            "validation_share": self.plan.validation_share,
            "seed": self.plan.seed,
            **({"split": self.folder.split} if self.folder.split else {}),
        }

    def retry(self, net, entry: dict) -> dict | None:
        """Tries the task with an overlay if it is below its linear head."""
        memory = self._floor.retry(net, entry)
        if memory is not None:
            self._floor = None  # and its images
        return memory

    def finish(self, net, entry: dict) -> None:
        """Holds the task against its linear head, and lets go of its images."""
        floor, self._floor = self._floor, None
        floor.hold(net, entry)
