"""`PackNet`: packs many tasks into one trunk."""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from packnet_tf.adoption.adopt import Adoption, adopt
from packnet_tf.backend.text import quoted
from packnet_tf.backend.types import AnyData, AnyPath
from packnet_tf.packing import cloning
from packnet_tf.packing.initializers import fresh_values
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.pruning import check_ratio, check_ratios, magnitude
from packnet_tf.packing.weight import Criterion, clear
from packnet_tf.tasks.checks import (
    check_class_count,
    check_finite,
    check_release,
    check_statistics,
    check_statistics_current,
    warn_of_steps_elsewhere,
)
from packnet_tf.tasks.integrity.changes import configurations
from packnet_tf.tasks.integrity.names import class_names
from packnet_tf.tasks.integrity.networks import (
    check_head,
    check_head_copy,
    check_trunk,
    nothing_to_pack,
)
from packnet_tf.tasks.records import Head, TaskRecord
from packnet_tf.tasks.state import PackState
from packnet_tf.tasks.stored_pack import StoredPack
from packnet_tf.tasks.task_model import Phase, TaskModel, as_given
from packnet_tf.tasks.transaction import Transaction


class PackNet(StoredPack):
    """Packs task after task into one trunk; earlier tasks never change.

    A method that raises, or is interrupted by Ctrl-C, leaves the pack in its state before the call
    or after it, never in between.

    Args:
        trunk: a built Functional or Sequential `keras.Model`, pretrained or not. It is copied and
            does not change.
        biases: "shared": biases train with the first task and are then frozen; "per_task": every
            task has its own.
        norms: the same for normalisation layers, moving statistics included.
        restart: the values at which freed weights start a later task: "trunk", the trunk's original
            values; "zero", best beside an adopted trunk and from random weights; or "fresh", new
            samples from the layers' initializers. The paper's rules are `norms="shared",
            restart="zero"`.
        embeddings: "shared": embeddings train with the first task and are then frozen; "packed":
            they are packed in the same way as kernels.
        stem: name of the last layer of the stem. The stem trains with the first task, kernels and
            norms included, and is then frozen: all tasks share it, so a device computes it once
            for all tasks, see `packnet_tf.export.export_multitask`. Layers that are frozen in the
            trunk stay as they are. Default: no stem.

    Attributes:
        notes: dict of your own strings, saved with the pack and written into exported files.

    Raises:
        ValueError: the trunk cannot be packed; the message says why.

    Example:
        >>> net = packnet_tf.PackNet(trunk)
        >>> model = net.add_task("birds", keras.layers.Dense(200))
        >>> model.compile("adam", loss=loss, metrics=["accuracy"])
        >>> model.fit(train, epochs=30, callbacks=[packnet_tf.PackNetCallback(0.75, 20)])
        >>> net.save("pack.keras")

    Source: Mallya & Lazebnik, PackNet, CVPR 2018, arXiv 1711.05769.
    """

    def __init__(
        self,
        trunk: keras.Model,
        biases: str = "shared",
        norms: str = "per_task",
        restart: str = "trunk",
        embeddings: str = "shared",
        stem: str | None = None,
    ):
        policy = Policy(biases, norms, restart, embeddings, stem)
        check_trunk(trunk.state.trunk if isinstance(trunk, PackNet) else trunk)
        store = cloning.pack_trunk(trunk, policy)
        self.state = PackState(store, policy, store.packed_weights())
        self._open_model = None
        if not self.state.weights:
            raise nothing_to_pack(trunk, policy)

    # -- The verbs: add, prune, commit -----------------------------------------------------------

    def add_task(
        self,
        name: str,
        head: keras.layers.Layer,
        classes: Sequence[str] | Mapping | None = None,
        claim_ratio: float = 1.0,
        statistics: str = "task",
        reuse: str | Sequence[str] = "all",
        overlay: float | None = None,
    ) -> TaskModel:
        """Opens a new task, which claims free weights, or overrides weights of others.

        Args:
            name: unique, and usable as a file name: letters, digits, `_`, `-` and `.`.
            head: the task's own output layers, a layer or a model that takes the trunk's outputs.
                It is copied, with its values if it is built.
            classes: names of the classes in output order, or a dict such as `class_indices` of
                Keras's generators; saved with the task and exported.
            claim_ratio: fraction of each layer's free weights to claim, 0 to 1. The task claims
                exactly `round(claim_ratio * free)` weights, those with the largest restart
                magnitudes.
            statistics: source of the trunk's batch-normalisation statistics. "task": batches in
                training, and the task's own moving statistics in inference. "trunk": the trunk's
                original moving statistics, in training too.
            reuse: earlier tasks whose weights the task sees: "all", as in the paper; "none"; a
                list of names; or "auto": the base alone if there is one (`adopt`), else all.
                Weights of the other tasks count as 0 for the new one.
            overlay: fraction of all packed weights, whoever owns them, that the task may override
                with values that it alone sees. It then claims no free weights, so that a full pack
                takes it, and `release` can remove it at any time. All weights train, from the
                values of the tasks that it sees, until the prune chooses those that it overrides.

        Returns:
            A Keras model of packed trunk and head, to compile and fit.

        Raises:
            ValueError: the name, the head, the class names, the claim ratio, the statistics,
                `reuse` or the overlay cannot be used, or no weight is free.
            RuntimeError: another task is not committed yet.

        Example:
            >>> model = net.add_task("birds", keras.layers.Dense(200))
        """
        self.state.check_name(name)
        self.state.check_owners()
        check_head(name, head)
        claim_ratio = check_ratio(claim_ratio, "claim_ratio")
        sees = self.state.seen_by_next(reuse, overlay)
        overlay = self.state.check_room(name, sees, claim_ratio, overlay)
        check_statistics(statistics)
        classes = class_names(name, classes)
        with as_given(head):
            record = TaskRecord(
                name, sees, Head(cloning.copy_layer(head)), classes, claim_ratio, statistics,
                overlay=overlay,
            )  # fmt: skip
            try:
                model = self._build(record, head=head)
            except ValueError as error:
                raise ValueError(
                    f"Cannot add task '{name}': its head does not fit the trunk, whose outputs "
                    f"have shape {self.state.trunk.output_shape}: {quoted(error)}"
                ) from error
        check_class_count(name, classes, model)
        check_head_copy(name, head, model.head, self.state.trunk.output)
        record.key.made_of = configurations(model)
        state = self.state.with_last(record).with_weights_of(model.trunk)
        weights = state.weights.values()
        with Transaction(self):
            if self.policy.restart == "fresh" and record.number > 1 and overlay is None:
                layers = (layer for _, layer in self.state.trunk.paths())
                for weight, values in zip(weights, fresh_values(layers), strict=True):
                    weight.restart(values)
            for weight in weights:
                weight.open(sees, claim_ratio)
            self.state, self._open_model = state, model
        return model

    def adopt(
        self,
        name: str,
        prune_ratio: float | Mapping[str, float] = 0.5,
        head: keras.layers.Layer | None = None,
        images: AnyData = None,
        epochs: int = 5,
        learning_rate: float | None = None,
        classes: Sequence[str] | Mapping | None = None,
        criterion: Criterion = magnitude,
        verbose: str | int = "auto",
    ) -> Adoption:
        """Makes the pretrained trunk the first task, without its training data.

        It prunes the trunk, repairs the damage if images are given, and commits the task. The
        repair needs no labels: on any images, the pruned trunk learns to reproduce the unpruned
        one, layer by layer. Kernels, biases and gains train; moving statistics do not change. Under
        `restart="trunk"`, the restart values of the free weights are then trained too, so that the
        next task starts from a whole trunk.

        Args:
            name: as for `add_task`.
            prune_ratio: fraction of every layer to release for later tasks, 0 to 1; or a dict by
                the path of each packed weight, such as `packnet_tf.erk_ratios(net, 0.2)`, which
                damages small trunks less.
            head: the trunk's built output layers; they keep their values. Without a head, the task
                returns the trunk's features.
            images: data that `fit` accepts and can iterate repeatedly: an array, or a dataset of
                batches, whose labels are ignored. None: no repair.
            epochs: passes over the images for the repair, and again for the restart values; 0 only
                measures the damage.
            learning_rate: Adam's initial learning rate; it decays along half a cosine. Default:
                3e-4, or proportionally less if the relative error of the features is below 0.1; a
                repair that makes them worse is then undone.
            classes: as for `add_task`.
            criterion: as for `prune`.
            verbose: as for `fit`.

        Returns:
            The fraction of released weights, and the errors of the features before and after the
            repair; prints as a table.

        Raises:
            ValueError: an argument cannot be used, or a repair at the given learning rate made the
                features worse. The pack does not change.
            RuntimeError: the pack has a task already.

        Example:
            >>> net = packnet_tf.PackNet(trunk)
            >>> print(net.adopt("imagenet", prune_ratio=0.5, images=birds))
            >>> model = net.add_task("birds", keras.layers.Dense(200))
        """
        return adopt(
            self, name, prune_ratio, head, images, epochs, learning_rate, classes, criterion,
            verbose,
        )  # fmt: skip

    def prune(
        self, ratio: float | Mapping[str, float], criterion: Criterion = magnitude
    ) -> dict[str, int]:
        """Releases the fraction `ratio` of the open task's claim in every layer.

        For a task with an overlay, it chooses the weights that the task overrides: it keeps those
        that changed most, over all layers together, at most the overlay's fraction of all packed
        weights. If the compiled optimizer averages squared gradients, as Adam does, changes are
        multiplied by their roots. The other weights have the earlier tasks' values again.

        Args:
            ratio: fraction to release, 0 to 1; or a dict by the path of each packed weight (the
                keys of `capacity()`), see `packnet_tf.erk_ratios`. Released weights count as 0
                from now on, or have the earlier tasks' values under an overlay.
            criterion: function `(weights, claim, ratio) -> released` on NumPy arrays that selects
                the weights to release, called once per packed weight. Default: the smallest
                magnitudes, see `packnet_tf.magnitude`. For a task with an overlay, it is called
                once, with these changes of all weights as one array.

        Returns:
            Dict from path to the number of released weights, exactly `round(ratio * claimed)`;
            under an overlay, their sum is at least that of all layers together.

        Raises:
            ValueError: the ratio is out of range, claimed weights are NaN, or the criterion selects
                weights outside the claim or another number of them.
            RuntimeError: no task is open.

        Example:
            >>> released = net.prune(0.75)
        """
        return self._prune(check_ratios(ratio, self.state.weights), criterion)

    def prune_to(self, sparsity: float, criterion: Criterion = magnitude) -> dict[str, int]:
        """Releases weights until `sparsity` of the open task's initial claim is released.

        Repeated calls with rising sparsities prune gradually. Released weights stay released, and
        in the end exactly `round(sparsity * initial_claim)` weights of every layer are; under an
        overlay, that many of all layers together, or more.

        Args:
            sparsity: fraction of the weights that the task claimed when it was added, 0 to 1.
            criterion: as for `prune`.

        Returns:
            Dict from path to the number of weights that this call released.

        Raises:
            ValueError, RuntimeError: as for `prune`.

        Example:
            >>> released = net.prune_to(0.5)
        """
        return self._prune(check_ratio(sparsity, "sparsity"), criterion)

    def _prune(self, target: Mapping[str, float] | float, criterion: Criterion) -> dict[str, int]:
        record, model = self._open("prune")
        try:
            chosen = self.state.choose(target, criterion, model)
        except ValueError as error:
            raise ValueError(f"Cannot prune task '{record.name}': {error}") from error
        counts = {path: int(np.count_nonzero(mask)) for path, mask in chosen.items()}
        with Transaction(self):
            for path, weight in self.state.weights.items():
                weight.release(chosen[path])
            model.phase.assign(int(Phase.RETRAINING))
            if any(counts.values()):  # the statistics belong to the unpruned network
                model.seen.pruned(model.steps_seen)
                model.batches_seen.assign(0.0)
            claims = self.state.claimed()
            record = dataclasses.replace(record, phase=Phase.RETRAINING, claims=claims)
            self.state = self.state.with_last(record)
        return counts

    def commit(self) -> None:
        """Makes the open task the owner of its claim, permanently; an overlay stays its own.

        If the moving statistics have not been measured since the last training step and the last
        prune, they are first measured on the data of the last `fit`, or on the last batches of
        `train_on_batch` and of calls that were not traced. After a custom loop with a traced step,
        call `packnet_tf.update_statistics` before.

        Raises:
            ValueError: weights are NaN or infinite.
            RuntimeError: no task is open, its weights were restored from before its prune, it has
                an overlay and was not pruned, weights of committed tasks were changed, or a layer
                of the trunk was, other than by training.

        Example:
            >>> net.prune(0.75)
            >>> net.commit()
        """
        record, model = self._open("commit")
        weights, trunk = self.state.weights, self.state.trunk
        self.state.check_commit(model)
        self._check_layers("commit")
        others = [*(variable for _, variable in own_weights(model.trunk)), *model.head.weights]
        check_finite(record.name, weights, others)  # before the pass over the data
        if model.seen.update_statistics(model, model.steps_seen):
            check_finite(record.name, weights, others)
        check_statistics_current(model)
        if not model.seen.has_trained(model.steps_seen):
            closed = [other for task in self.state.committed for other in task.key.models]
            warn_of_steps_elsewhere(record.name, [*closed, *self._discarded])
        model.seen.forget()
        with Transaction(self):
            if record.number == 1:
                self.policy.copy_shared(model.trunk, trunk)
            for weight in weights.values():
                weight.commit(record.number, keep_restart_values=self.policy.restart != "zero")
            model.phase.assign(int(Phase.COMMITTED))
            model.batches_seen.assign(0.0)
            record = record.committed(model, trunk, weights.values())
            record.key.models.add(model)
            state = self.state.with_last(record).with_weights_of(trunk)
            self.state = state.with_digests() if record.owns else state
            self._open_model = None
            model.freeze()

    def discard(self) -> None:
        """Drops the open task and frees its claim.

        Raises:
            RuntimeError: no task is open.

        Example:
            >>> net.discard()
        """
        record, model = self._open("discard")
        with Transaction(self):
            for weight in self.state.weights.values():
                clear(weight.trained[1])
            self.state = self.state.without(record).with_weights_of(self.state.trunk)
            self._open_model = None
            model.freeze()
            model.batches_seen.assign(0.0)
        self._discarded.add(model)

    def release(self, name: str) -> None:
        """Removes the last task that owns weights and frees them, or a task with an overlay.

        A task with an overlay can be removed at any time, because no other task sees it.
        The freed weights restart from the task's values, from 0 under `restart="zero"`, or, for a
        task that is not the first, from new samples under `restart="fresh"`. Weights that are
        shared after the first task keep their values, even if the first task is removed.

        Args:
            name: the committed task to remove; its models then refuse to answer.

        Raises:
            ValueError: there is no such task, or it owns weights and is not the last such one.
            RuntimeError: it owns weights, and a task is open, which would lose them; or weights of
                committed tasks were changed.

        Example:
            >>> net.release("birds")
        """
        record, still_open = self.state.record(name), self.state.open
        check_release(record, self.state.committed, still_open.name if still_open else None)
        self.state.check_unchanged(f"release task '{name}'")
        with Transaction(self):
            for weight in self.state.weights.values():
                weight.give_back(record.number, keep_values=self.policy.restart != "zero")
            state = self.state.without(record)
            self.state = state.with_digests() if record.owns else state


def load(path: AnyPath) -> PackNet:
    """Reads a pack that `PackNet.save` wrote; nothing in the file is executed.

    Args:
        path: a `.keras` file.

    Returns:
        The pack. If a task is open, continue with `net.open_model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not a pack; the message names it and says why.

    Example:
        >>> net = packnet_tf.load("pack.keras")
        >>> net.task_model("birds").predict(images)
    """
    return PackNet.from_file(path)
