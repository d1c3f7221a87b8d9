"""`TaskRouter`: tells which of a pack's tasks an image is for."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np

from packnet_tf.backend.datasets import check_ends
from packnet_tf.backend.text import listed
from packnet_tf.backend.types import AnyData, AnyPath
from packnet_tf.packing.cloning import full_precision
from packnet_tf.packing.weight import values_of
from packnet_tf.reporting.tables import AsTable, Table, count_bytes
from packnet_tf.routing import files
from packnet_tf.routing.features import feature_model
from packnet_tf.routing.gaussians import (
    TaskGaussian,
    fit_gaussian,
    log_likelihoods,
    scores_of,
)
from packnet_tf.tasks.integrity.digests import digest_of

if TYPE_CHECKING:
    from packnet_tf.net import PackNet

HOLD_OUT = 5  # every fifth image calibrates, where no others are given for that
FEWEST = 6  # so that two are held out


class TaskRouter(AsTable):
    """Tells which of a pack's tasks an image is for, or that it is for none of them.

    It looks at features of the pack's first task, which is the base if a trunk was adopted. For
    each task it keeps a Gaussian of the features of its images. Tasks are independent of each
    other: adding or removing one changes nothing for the others and needs no images of theirs. It
    needs no labels. Once the pack releases a task, the router knows it no longer.

    It prints as a table of its tasks.

    Args:
        net: a pack with a committed task. The router knows no tasks yet; see `fit` and `add`.

    Attributes:
        net: the pack.

    Raises:
        ValueError: the pack has no task, or the trunk's outputs have no known size.

    Example:
        >>> router = packnet_tf.TaskRouter.fit(net, {"birds": birds})
        >>> names = router.predict(images)
        >>> router.save("router.npz")

    Sources: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples,
    NeurIPS 2018 (Gaussians of a network's features); Ren et al., A Simple Fix to Mahalanobis
    Distance, 2021, arXiv 2106.09022 (directions that all images share mislead the distance).
    """

    def __init__(self, net: "PackNet") -> None:
        if not net.tasks:
            raise ValueError(
                "A router looks at features of the pack's first task, and the pack has no "
                "committed task. Train one and call net.commit(), or adopt a trained trunk: "
                "net.adopt('base')."
            )
        self.net = net
        self._view = net.tasks[0]
        self._known: dict[str, tuple[str, TaskGaussian]] = {}  # when it was committed, and this

    @classmethod
    def fit(
        cls,
        net: "PackNet",
        images: Mapping[str, AnyData],
        validation: Mapping[str, AnyData] | None = None,
    ) -> "TaskRouter":
        """Fits a router on images of tasks.

        Args:
            net: the pack.
            images: images of each task, by its name, as for `add`.
            validation: other images of the tasks, to calibrate on, by name; a fifth of `images` is
                held out for tasks that have none.

        Returns:
            The router.

        Raises:
            ValueError: a task is not known, or its images do not fit or are too few.

        Example:
            >>> router = packnet_tf.TaskRouter.fit(net, {"birds": birds})
        """
        for what, given in (("images", images), ("validation", validation or {})):
            if not isinstance(given, Mapping):
                raise ValueError(
                    f"The {what} of a router are a dict by task; got {type(given).__name__}. Write "
                    'TaskRouter.fit(net, {"birds": images}).'
                )
        unused = set(validation or {}) - set(images)
        if unused:
            raise ValueError(
                f"validation has the task '{min(unused)}', and images does not. Give images of it "
                "too, or leave it out."
            )
        router = cls(net)
        for name, given in images.items():
            router.add(name, given, (validation or {}).get(name))
        return router

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks it knows, in the order of the columns of `scores`."""
        return tuple(self._present())

    @property
    def gaussians(self) -> tuple[TaskGaussian, ...]:
        """What it keeps of each task, in the order of `tasks`."""
        return tuple(self._present().values())

    @functools.cached_property
    def features(self) -> keras.Model:
        """The plain Keras model from images to the features that it looks at."""
        model = self.net.unpack(self._view)
        trunk = model.get_layer(self.net.state.trunk.name)
        return feature_model(full_precision(trunk))

    def add(self, name: str, images: AnyData, validation: AnyData = None) -> None:
        """Adds a task, or replaces what is known of it; other tasks stay as they are.

        Args:
            name: a committed task of the pack.
            images: images of the task, as the trunk takes them: an array (n, ...), or a dataset of
                batches, whose labels are ignored.
            validation: other images of the task, to calibrate on. Default: every fifth of `images`.

        Raises:
            ValueError: there is no such task; the images do not fit the trunk; there are fewer than
                6, or fewer than 2 to calibrate on; or their features are not finite.

        Example:
            >>> router = packnet_tf.TaskRouter(net)
            >>> router.add("birds", birds)
        """
        self.net.classes(name)  # raises for an unknown name
        features = self._features(name, images)
        if validation is None:
            _check_count(name, len(features), FEWEST, "of which every fifth is held out")
            held_out = features[::HOLD_OUT]
            features = np.delete(features, slice(None, None, HOLD_OUT), axis=0)
        else:
            held_out = self._features(name, validation)
            _check_count(name, len(features), 2, "beside those to calibrate on")
            _check_count(name, len(held_out), 2, "to calibrate on")
        self._known[name] = self._commit_of(name), fit_gaussian(features, held_out)

    def remove(self, name: str) -> None:
        """Removes a task; other tasks stay as they are.

        Raises:
            ValueError: the router does not know the task.

        Example:
            >>> router.remove("birds")
        """
        if name not in self.tasks:
            known = listed(self.tasks) or "none"
            raise ValueError(f"The router knows no task '{name}'; it knows {known}.")
        del self._known[name]

    def scores(self, images: AnyData) -> np.ndarray:
        """Returns the score of every task for every image.

        The largest score of an image is that of its task. It is 1 for an image that is as usual as
        the median of that task's; of 1 % of them, it is below 0.

        Args:
            images: as for `add`.

        Returns:
            float32 (images, tasks), columns in the order of `tasks`.

        Raises:
            ValueError: the images do not fit the trunk.
            RuntimeError: the router knows no task.

        Example:
            >>> router.scores(images).shape
            (24, 1)
        """
        gaussians = self.gaussians
        if not gaussians:
            raise RuntimeError(
                "The router knows no task. Call router.add(name, images) for each task first."
            )
        return scores_of(log_likelihoods(self._features(None, images), gaussians), gaussians)

    def predict(self, images: AnyData) -> list[str | None]:
        """Returns for each image the name of its task, or None if it is for none of them.

        Args:
            images: as for `add`.

        Raises:
            ValueError, RuntimeError: as for `scores`.

        Example:
            >>> names = router.predict(images)
        """
        return self.named(self.scores(images))

    def named(self, scores: np.ndarray) -> list[str | None]:
        """Returns what `predict` returns for images of these scores.

        Args:
            scores: what `scores` returned.

        Example:
            >>> router.named(np.array([[0.8], [-0.1]]))
            ['birds', None]
        """
        best, tasks = scores.argmax(axis=1), self.tasks
        return [
            tasks[task] if row[task] >= 0 else None for task, row in zip(best, scores, strict=True)
        ]

    def storage(self) -> dict[str, int]:
        """Returns the bytes that the router keeps of each task.

        Example:
            >>> router.storage()
            {'birds': 92}
        """
        return {name: gaussian.nbytes for name, gaussian in self._present().items()}

    def save(self, path: AnyPath) -> None:
        """Writes what the router knows of the tasks; the network stays in the pack.

        Args:
            path: the file; its name ends in `.npz`.

        Raises:
            ValueError: the name does not end in `.npz`.
            OSError: the file cannot be written.

        Example:
            >>> router.save("router.npz")
        """
        gaussians = self._present()
        commits = {name: self._commit_of(name) for name in gaussians}
        facts = {"view": self._view, "digest": self._digest, "commits": commits}
        files.write(path, facts, gaussians)

    @classmethod
    def load(cls, path: AnyPath, net: "PackNet") -> "TaskRouter":
        """Reads a router; nothing in the file is executed.

        Tasks that the pack has released since, also those whose name another task has by now, are
        left out.

        Args:
            path: a file that `save` wrote.
            net: the pack, in the same state or a later one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, is not a router, or belongs to another pack.

        Example:
            >>> router.save("router.npz")
            >>> router = packnet_tf.TaskRouter.load("router.npz", net)
        """
        facts, gaussians = files.read(path)
        router = cls(net)
        if facts.get("digest") != router._digest:
            raise ValueError(
                f"The router '{path}' looks at features of the task '{facts.get('view')}' of "
                f"another pack: those of '{net.tasks[0]}' in this one differ. Load it with its own "
                "pack, or fit a router for this one."
            )
        router._known = {name: (facts["commits"][name], found) for name, found in gaussians.items()}
        return router

    def _present(self) -> dict[str, TaskGaussian]:
        """What it keeps of tasks that the pack still has; another may have the name by now."""
        return {
            name: gaussian
            for name, (commit, gaussian) in self._known.items()
            if name in self.net.tasks and commit == self._commit_of(name)
        }

    @functools.cached_property
    def _digest(self) -> str:
        """SHA-256 of the weights of the network that the features come from."""
        return digest_of(None, values_of(self.features.variables))

    def _commit_of(self, name: str) -> str:
        return str(self.net.metadata(name).get("committed", ""))

    def _features(self, name: str | None, images: AnyData) -> np.ndarray:
        whose = "" if name is None else f" of task '{name}'"
        check_ends(images, f"The images{whose}")
        self._check_shape(whose, images)
        found = np.asarray(self.features.predict(images, verbose=0), np.float32)
        if not np.isfinite(found).all():
            raise ValueError(
                f"The features of the images{whose} are NaN or infinite. Check that the images "
                "have the pixel values that the trunk takes."
            )
        return found

    def _check_shape(self, whose: str, images: AnyData) -> None:
        """Refuses arrays that the trunk does not take; Keras checks datasets."""
        entries = self.features.inputs
        if len(entries) > 1 or not hasattr(images, "shape"):
            return
        wanted, given = tuple(entries[0].shape[1:]), tuple(images.shape[1:])
        fits = len(wanted) == len(given) and all(
            size in (None, other) for size, other in zip(wanted, given, strict=True)
        )
        if not fits:
            raise ValueError(
                f"The images{whose} have the shape {tuple(images.shape)}, and the trunk takes "
                f"{('batch', *wanted)}. Resize and scale them as in training."
            )

    def _table(self) -> Table:
        rows = [
            [name, str(gaussian.examples), count_bytes(gaussian.nbytes)]
            for name, gaussian in self._present().items()
        ]
        rows.append(["all", "", count_bytes(sum(self.storage().values()))])
        return Table(["routed to", "images", "router's bytes"], rows, total=1)


def _check_count(name: str, count: int, fewest: int, why: str) -> None:
    if count < fewest:
        raise ValueError(
            f"A router needs at least {fewest} images of task '{name}' {why}; got {count}. Give "
            "more images."
        )
