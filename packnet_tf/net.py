"""PackNet: one trunk, many tasks."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras.ops import convert_to_numpy

from packnet_tf.adoption.adopt import Adoption, adopt
from packnet_tf.packing import cloning
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.pruning import check_ratio, check_ratios, magnitude
from packnet_tf.packing.restart import fresh_values
from packnet_tf.packing.weight import Criterion, choose_all, clear, copy_value
from packnet_tf.tasks.checks import (
    check_capacity,
    check_finite,
    check_head,
    check_owners,
    check_release,
    check_statistics,
    check_trunk,
    nothing_to_pack,
    rolled_back,
)
from packnet_tf.tasks.class_names import class_names
from packnet_tf.tasks.records import Head, TaskRecord
from packnet_tf.tasks.reuse import seen_numbers
from packnet_tf.tasks.state import PackState
from packnet_tf.tasks.task_model import COMMITTED, RETRAINING, TaskModel, as_given
from packnet_tf.tasks.transaction import Transaction


class PackNet(PackState):
    """Packs task after task into one trunk; earlier tasks never change.

    A verb that raises, by Ctrl-C at any moment too, leaves the pack as it was before it, or as it
    is after it.

    Args:
        trunk: a built Functional or Sequential `keras.Model`, pretrained or not. It is copied and
            left untouched.
        biases: "shared": biases train with the first task and are frozen afterwards; "per_task":
            every task has its own.
        norms: the same for normalisation layers, moving statistics included.
        restart: what freed weights start a later task from: "trunk", the values the trunk came
            with; "zero"; or "fresh", drawn anew from the layers' initializers. The paper's rules
            are `norms="shared", restart="zero"`.
        embeddings: "shared": they train with the first task and are frozen afterwards; "packed":
            they are packed as kernels are.

    Attributes:
        notes: strings of your own, saved with the pack and written into exported files.

    Raises:
        ValueError: the trunk cannot be packed; the message says why.

    Example:
        >>> net = packnet_tf.PackNet(trunk)
        >>> model = net.add_task("birds", keras.layers.Dense(200))
        >>> model.compile("adam", loss=..., metrics=["accuracy"])
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
    ):
        policy = Policy(biases, norms, restart, embeddings)
        check_trunk(trunk._trunk if isinstance(trunk, PackNet) else trunk)
        self._setup(cloning.pack_trunk(trunk, policy.embeddings == "packed"), policy)
        if not self._weights:
            raise nothing_to_pack(trunk, embeddings)

    # -- The verbs: add, prune, commit -----------------------------------------------------------

    def add_task(
        self,
        name: str,
        head: keras.layers.Layer,
        classes: Sequence[str] | Mapping | None = None,
        claim_ratio: float = 1.0,
        statistics: str = "task",
        reuse: str | Sequence[str] = "all",
    ) -> TaskModel:
        """Opens a new task, which claims all free weights, or a part of them.

        Args:
            name: unique, and usable as a file name: letters, digits, `_`, `-` and `.`.
            head: the task's own output layers, a layer or a model that takes the trunk's outputs.
                A copy is used, with its values where it has been built.
            classes: names of the classes in output order, or a dict such as `class_indices` of
                Keras's generators; kept with the task and exported.
            claim_ratio: fraction of the free weights of every layer to claim, 0 to 1: exactly
                `round(claim_ratio * free)`, those with the largest values to start from.
            statistics: what batch normalisation in the trunk normalises by: "task", batches in
                training and statistics of the task's own in its answers; "trunk", those that the
                trunk came with, in training too.
            reuse: which earlier tasks' weights it sees: "all", as in the paper; "none"; or a list
                of their names. Weights of the others count as 0 for it, so what they have learnt,
                right or wrong for this one, makes no difference to it.

        Returns:
            A Keras model, packed trunk and head, to compile and fit.

        Raises:
            ValueError: the name, the head, the class names, the claim ratio, the statistics or
                `reuse` cannot be used, or no weight is free.
            RuntimeError: another task is not committed yet.
        """
        self.check_name(name)
        check_owners(self._weights, self._records)
        check_head(name, head)
        check_capacity(name, self.capacity(), self.base)
        claim_ratio = check_ratio(claim_ratio, "claim_ratio")
        check_statistics(statistics)
        classes = class_names(name, classes)
        sees = seen_numbers(reuse, self.tasks)
        with as_given(head):
            record = TaskRecord(name, sees, Head(cloning.copy_layer(head)), classes)
            record.claim_ratio, record.statistics = claim_ratio, statistics
            try:
                model = self._build(record, head=head)
            except ValueError as error:
                raise ValueError(
                    f"Cannot add task '{name}': its head does not fit the trunk, whose outputs "
                    f"have shape {self._trunk.output_shape}: {error}"
                ) from error
        width = model.output_shape[-1] if isinstance(model.output_shape, tuple) else None
        if classes is not None and width is not None and len(classes) != width:
            raise ValueError(
                f"Cannot add task '{name}': {len(classes)} class names for {width} outputs. Give "
                "one name per output of the head."
            )
        with Transaction(self):
            if self.policy.restart == "fresh" and record.number > 1:
                for weight, values in zip(
                    self._weights.values(), fresh_values(self._trunk), strict=True
                ):
                    weight.restart(values)
            for weight in self._weights.values():
                weight.open(record.number, claim_ratio)
            self._open, self._was_pruned = (record, model), False
        return model

    def adopt(
        self,
        name: str,
        prune_ratio: float | Mapping[str, float] = 0.5,
        head: keras.layers.Layer | None = None,
        images=None,
        epochs: int = 5,
        learning_rate: float | None = None,
        classes: Sequence[str] | Mapping | None = None,
        criterion: Criterion = magnitude,
        verbose: str | int = "auto",
    ) -> Adoption:
        """Makes the pretrained trunk the first task, without its training data.

        Prunes it, repairs the damage where there are images, and commits. The repair needs no
        labels: the pruned trunk learns to compute what the unpruned one does, layer by layer, on
        whatever images there are. Kernels, biases and gains train; moving statistics stay. Then,
        under `restart="trunk"`, what the free weights start from is trained to make the trunk
        whole again for the next task.

        Args:
            name: as for `add_task`.
            prune_ratio: fraction of every layer to release for later tasks, 0 to 1; or by the path
                of each packed weight: `packnet_tf.erk_ratios(net, 0.2)` harms small trunks less.
            head: the built output layers that belong to the trunk; they keep their values. Without
                it the task answers with the trunk's features.
            images: what `fit` takes and can go over several times: an array, or a dataset of
                batches, whose labels are not looked at. None: no repair.
            epochs: passes over the images, in each of the two; 0 measures the damage only.
            learning_rate: Adam's, in the first epoch; it falls along half a cosine. Default: 3e-4,
                and less in proportion where the features are off by less than a tenth; a repair
                that makes them worse all the same is taken back.
            classes: as for `add_task`.
            criterion: as for `prune`.
            verbose: as for `fit`.

        Returns:
            What was released, and the errors of the features before and after the repair.

        Raises:
            ValueError: an argument cannot be used, or the repair at the learning rate that was
                given made it worse. The pack is then as it was.
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
        """Releases the smallest `ratio` of the open task's claim, in every layer.

        Args:
            ratio: fraction to release, 0 to 1, of every layer or by the path of each packed weight
                (the keys of `capacity()`), see `packnet_tf.erk_ratios`. Released weights count as
                0 from now on.
            criterion: which weights go, a function `(weights, claim, ratio) -> released` of
                NumPy arrays, called once per packed weight; see `packnet_tf.magnitude`.

        Returns:
            How many weights were released, per layer: exactly `round(ratio * claimed)`.

        Raises:
            ValueError: the ratio is out of range, the weights have become NaN, or the criterion
                does not choose that many of the claim.
            RuntimeError: no task is open.
        """
        return self._prune(check_ratios(ratio, self._weights), criterion)

    def prune_to(self, sparsity: float, criterion: Criterion = magnitude) -> dict[str, int]:
        """Releases what is missing until `sparsity` of what the open task began with is released.

        Called with growing values this prunes gradually: what is released stays released, and in
        the end exactly `round(sparsity * began)` weights of every layer are.

        Args:
            sparsity: fraction of the weights that the task claimed when it was added, 0 to 1.
            criterion: as for `prune`.

        Returns:
            How many weights were released now, per layer.

        Raises:
            ValueError, RuntimeError: as for `prune`.
        """
        sparsity = check_ratio(sparsity, "sparsity")
        record, _ = self._need_open("prune")
        ratios = {
            path: weight.share_to(sparsity, record.claim_ratio)
            for path, weight in self._weights.items()
        }
        return self._prune(ratios, criterion)

    def _prune(self, ratios: Mapping[str, float], criterion: Criterion) -> dict[str, int]:
        record, model = self._need_open("prune")
        try:
            chosen = choose_all(self._weights, ratios, criterion)
        except ValueError as error:
            raise ValueError(f"Cannot prune task '{record.name}': {error}") from error
        counts = {path: int(np.count_nonzero(mask)) for path, mask in chosen.items()}
        with Transaction(self):
            for path, weight in self._weights.items():
                weight.release(chosen[path])
            model.phase.assign(RETRAINING)
            if any(counts.values()):
                model.batches_seen.assign(0.0)  # the statistics of before are another network's
            self._was_pruned = True
        return counts

    def commit(self) -> None:
        """Gives the open task what it claims, for good; frees nothing, changes no earlier task.

        Where `train_on_batch` or calls that were not traced have trained the task since its prune,
        moving statistics are first measured on their last batches; `fit` has done so at its end.
        For loops whose steps are traced see `packnet_tf.update_statistics`.

        Raises:
            ValueError: the weights have become NaN.
            RuntimeError: no task is open, or its weights were rolled back to before its prune.
        """
        record, model = self._need_open("commit")
        check_owners(self._weights, self._records)
        self.check_pruned()
        own = own_weights(model.trunk)
        others = [*(v for _, v in own), *model.head.weights]
        check_finite(record.name, self._weights, others)  # before data are asked for
        if convert_to_numpy(model.batches_seen) > 0:
            model.seen.update_statistics(model)
            check_finite(record.name, self._weights, others)
        with Transaction(self):
            if record.number == 1:
                for (layer, variable), (_, start) in zip(
                    own, own_weights(self._trunk), strict=True
                ):
                    if self.policy.shares(layer, variable):
                        copy_value(variable, start)
            for weight in self._weights.values():
                weight.commit(record.number, keep_restart_values=self.policy.restart != "zero")
            record.keep(model, self._trunk)
            record.owned = [
                weight.owner_counts(record.number)[record.number]
                for weight in self._weights.values()
            ]
            self._records = [*self._records, record]
            self._open = None
            model.phase.assign(COMMITTED)
            model.close()

    def note_results(self, name: str, **results: float) -> None:
        """Keeps accuracies with a committed task, beside those it has; see `results`.

        Raises:
            ValueError: there is no committed task of that name.
        """
        self._record(name).results |= {key: float(value) for key, value in results.items()}

    def discard(self) -> None:
        """Drops the open task: its claim is free again, as if it had never been added.

        Raises:
            RuntimeError: no task is open.
        """
        _, model = self._need_open("discard")
        with Transaction(self):
            for weight in self._weights.values():
                clear(weight.claim)
            self._open = None
            model.close()

    def release(self, name: str) -> None:
        """Gives the weights of the last task back to the free ones; the task is gone.

        They start the next task from the values that the released task had, or from 0 under
        `restart="zero"`. What is shared after the first task stays as it was trained, even if
        that was the task released.

        Args:
            name: the committed task to release; models of it answer no more.

        Raises:
            ValueError: there is no such task, or it is not the last one.
            RuntimeError: a task is open, which would lose weights that it sees.
        """
        record = self._record(name)
        check_release(record, self._records, self._open and self._open[0].name)
        check_owners(self._weights, self._records)
        with Transaction(self):
            for weight in self._weights.values():
                weight.give_back(record.number, keep_values=self.policy.restart != "zero")
            self._records = self._records[:-1]
            for model in self._models:
                model.released |= model.task_name == name

    def hold_policy(self, model: TaskModel) -> None:
        """Freezes what the open task's model shares with earlier tasks."""
        if self._records:
            self.policy.freeze_shared(model.trunk)

    def note_phase(self) -> None:
        """Takes the open task's phase as it is: what a resumed run restored is no rollback."""
        if self._open is not None:
            self._was_pruned = self._open[1].current_phase == RETRAINING

    def check_pruned(self) -> None:
        """Refuses weights from before the open task's prune, once it has been pruned.

        Raises:
            RuntimeError: a callback or a checkpoint has put them back.
        """
        if self._open is None:
            return
        record, model = self._open
        if model.current_phase == RETRAINING:
            self._was_pruned = True  # also where a checkpoint of another process says so
        elif self._was_pruned:
            raise rolled_back(record.name)

    # -- Files -----------------------------------------------------------------------------------

    def save(self, path) -> None:
        """Writes the pack, an open task included, to one `.keras` file; see `packnet_tf.load`.

        Written to a temporary file beside it, flushed and renamed: after a crash the old file is
        whole. The optimizer of an open task is not part of it.
        """
        from packnet_tf.tasks.storage import save

        check_owners(self._weights, self._records)
        save(self, path)

    def __reduce__(self):
        """Copies, of `copy.deepcopy` and pickle, are what a file of the pack would be read as.

        They share nothing with it; the model of an open task comes without its optimizer.
        """
        from packnet_tf.tasks.storage import from_bytes, to_bytes

        return from_bytes, (to_bytes(self),)
