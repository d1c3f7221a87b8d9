"""PackNet: one trunk, many tasks."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from keras.ops import convert_to_numpy

from packnet_tf.adoption.adopt import Adoption, adopt
from packnet_tf.backend.types import AnyData, AnyPath
from packnet_tf.packing import cloning
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.pruning import check_ratio, check_ratios, magnitude
from packnet_tf.packing.restart import fresh_values
from packnet_tf.packing.weight import Criterion, choose_all, clear, copy_value
from packnet_tf.tasks import storage
from packnet_tf.tasks.checks import (
    check_capacity,
    check_finite,
    check_head,
    check_not_rolled_back,
    check_release,
    check_statistics,
    check_trunk,
    nothing_to_pack,
)
from packnet_tf.tasks.class_names import class_names
from packnet_tf.tasks.pack import Pack
from packnet_tf.tasks.records import Head, TaskRecord
from packnet_tf.tasks.reuse import seen_numbers
from packnet_tf.tasks.state import PackState
from packnet_tf.tasks.task_model import Phase, TaskModel, as_given
from packnet_tf.tasks.transaction import Transaction


class PackNet(Pack):
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
    ):
        policy = Policy(biases, norms, restart, embeddings)
        check_trunk(trunk.state.trunk if isinstance(trunk, PackNet) else trunk)
        store = cloning.pack_trunk(trunk, policy.embeddings == "packed")
        self.state = PackState(store, policy, store.packed_weights())
        self.open_model = None
        if not self.state.weights:
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
        self.state.check_name(name)
        self.state.check_owners()
        check_head(name, head)
        check_capacity(name, self.capacity(), self.base)
        claim_ratio = check_ratio(claim_ratio, "claim_ratio")
        check_statistics(statistics)
        classes = class_names(name, classes)
        sees = seen_numbers(reuse, self.tasks)
        with as_given(head):
            record = TaskRecord(
                name, sees, Head(cloning.copy_layer(head)), classes, claim_ratio, statistics
            )
            try:
                model = self._build(record, head=head)
            except ValueError as error:
                raise ValueError(
                    f"Cannot add task '{name}': its head does not fit the trunk, whose outputs "
                    f"have shape {self.state.trunk.output_shape}: {error}"
                ) from error
        width = model.output_shape[-1] if isinstance(model.output_shape, tuple) else None
        if classes is not None and width is not None and len(classes) != width:
            raise ValueError(
                f"Cannot add task '{name}': {len(classes)} class names for {width} outputs. Give "
                "one name per output of the head."
            )
        weights = self.state.weights.values()
        with Transaction(self):
            if self.policy.restart == "fresh" and record.number > 1:
                for weight, values in zip(weights, fresh_values(self.state.trunk), strict=True):
                    weight.restart(values)
            for weight in weights:
                weight.open(record.number, claim_ratio)
            self.state, self.open_model = self.state.with_open(record), model
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
        return self._prune(check_ratios(ratio, self.state.weights), criterion)

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
        claim_ratio = self.state.need_open("prune").claim_ratio
        ratios = {
            path: weight.share_to(sparsity, claim_ratio)
            for path, weight in self.state.weights.items()
        }
        return self._prune(ratios, criterion)

    def _prune(self, ratios: Mapping[str, float], criterion: Criterion) -> dict[str, int]:
        record, model = self._open("prune")
        try:
            chosen = choose_all(self.state.weights, ratios, criterion)
        except ValueError as error:
            raise ValueError(f"Cannot prune task '{record.name}': {error}") from error
        counts = {path: int(np.count_nonzero(mask)) for path, mask in chosen.items()}
        with Transaction(self):
            for path, weight in self.state.weights.items():
                weight.release(chosen[path])
            model.phase.assign(int(Phase.RETRAINING))
            if any(counts.values()):
                model.batches_seen.assign(0.0)  # the statistics of before are another network's
            self.state = self.state.with_open(dataclasses.replace(record, phase=Phase.RETRAINING))
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
        record, model = self._open("commit")
        weights, trunk = self.state.weights, self.state.trunk
        self.state.check_owners()
        check_not_rolled_back(record, model)
        own = own_weights(model.trunk)
        others = [*(v for _, v in own), *model.head.weights]
        check_finite(record.name, weights, others)  # before data are asked for
        if convert_to_numpy(model.batches_seen) > 0:
            model.seen.update_statistics(model)
            check_finite(record.name, weights, others)
        with Transaction(self):
            if record.number == 1:
                for (layer, variable), (_, start) in zip(own, own_weights(trunk), strict=True):
                    if self.policy.shares(layer, variable):
                        copy_value(variable, start)
            for weight in weights.values():
                weight.commit(record.number, keep_restart_values=self.policy.restart != "zero")
            model.phase.assign(int(Phase.COMMITTED))
            model.batches_seen.assign(0.0)
            owned = [w.owner_counts(record.number)[record.number] for w in weights.values()]
            record = dataclasses.replace(record.kept(model, trunk), owned=owned)
            self.state, self.open_model = self.state.with_open(record), None
            model.freeze()

    def note_results(self, name: str, **results: float) -> None:
        """Keeps accuracies with a committed task, beside those it has; see `results`.

        Args:
            name: of the task.
            results: accuracies, 0 to 1, by what they are of.

        Raises:
            ValueError: there is no committed task of that name.
        """
        found = {key: float(value) for key, value in results.items()}
        self.state = self.state.with_committed(name, results={**self.results(name), **found})

    def discard(self) -> None:
        """Drops the open task: its claim is free again, as if it had never been added.

        Raises:
            RuntimeError: no task is open.
        """
        _, model = self._open("discard")
        with Transaction(self):
            for weight in self.state.weights.values():
                clear(weight.trained[1])
            self.state, self.open_model = self.state.without_last(), None
            model.freeze()

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
        record, still_open = self.state.record(name), self.state.open
        check_release(record, self.state.committed, still_open.name if still_open else None)
        self.state.check_owners()
        with Transaction(self):
            for weight in self.state.weights.values():
                weight.give_back(record.number, keep_values=self.policy.restart != "zero")
            self.state = self.state.without_last()

    def _open(self, verb: str) -> tuple[TaskRecord, TaskModel]:
        """The record and the model of the open task.

        Raises:
            RuntimeError: no task is open, so there is nothing to `verb`.
        """
        record = self.state.need_open(verb)
        if self.open_model is None:
            raise RuntimeError(
                f"Cannot {verb} task '{record.name}': net.open_model, which trains it, was taken "
                "away. Put it back, or open the last saved pack with packnet_tf.load."
            )
        return record, self.open_model

    # -- Files -----------------------------------------------------------------------------------

    def save(self, path: AnyPath) -> None:
        """Writes the pack, an open task included, to one `.keras` file; see `packnet_tf.load`.

        Written to a temporary file beside it, flushed and renamed: after a crash the old file is
        whole. The optimizer of an open task is not part of it.

        Args:
            path: of the file, which ends in `.keras`.

        Raises:
            ValueError: it does not.
            RuntimeError: weights from before a commit were restored over those of committed tasks.
        """
        self.state.check_owners()
        state = self.state
        if self.open_model is not None:
            state = state.with_open(state.need_open("save").kept(self.open_model))
        storage.write(state, path)

    def restore(self, path: AnyPath) -> None:
        """Goes on from a later state of this pack, as `save` wrote it; notes made since then stay.

        Args:
            path: a `.keras` file, of a pack made from the same trunk, whose first tasks are those
                of this one.

        Raises:
            FileNotFoundError, ValueError: as for `load`, or the file is of another pack. This one
                is then as it was.
        """
        saved, known = storage.read(path), self.state.committed
        same = saved.tasks[: len(known)] == self.tasks and saved.policy == self.policy
        if not (same and saved.has_weights_of(self.state)):
            raise ValueError(
                f"'{path}' is not an earlier state of this pack: its trunk, its policy or its "
                f"first tasks ({', '.join(saved.tasks) or 'none'}) differ. Use the trunk, the "
                "policy and the tasks that it was made with, or another directory."
            )
        # Models of the tasks that are known go on answering.
        records = (*known, *saved.records[len(known) :])
        with Transaction(self), storage.naming(path):
            notes = {**saved.notes, **self.notes}
            self._take(dataclasses.replace(saved, records=records, notes=notes))

    def _take(self, state: PackState) -> None:
        """Becomes the pack of a state, with a model of its open task."""
        self.state, self.open_model = state, None
        if state.open is not None:
            model = self._build(state.open)
            state.open.assign_to(model)
            self.open_model = model

    def __reduce__(self) -> tuple[Callable[[bytes], "PackNet"], tuple[bytes]]:
        """Copies, of `copy.deepcopy` and pickle, are what a file of the pack would be read as.

        They share nothing with it; the model of an open task comes without its optimizer.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "pack.keras"
            self.save(path)
            return _from_bytes, (path.read_bytes(),)


def load(path: AnyPath) -> PackNet:
    """Reads a pack that `PackNet.save` wrote; nothing in the file is executed.

    Args:
        path: a `.keras` file.

    Returns:
        The pack, an open task included: go on with `net.open_model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not a pack; the message names it and says why.

    Example:
        >>> net = packnet_tf.load("pack.keras")
        >>> net.task_model("birds").predict(images)
    """
    net = PackNet.__new__(PackNet)
    state = storage.read(path)
    with storage.naming(path):
        net._take(state)  # noqa: SLF001  the class is ours
    return net


def _from_bytes(data: bytes) -> PackNet:
    """The pack of the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pack.keras"
        path.write_bytes(data)
        return load(path)
