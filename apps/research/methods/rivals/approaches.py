"""The rivals: from what each computes a task's kernels, and what it keeps of them."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from packnet_tf.apps.packs import rates
from packnet_tf.apps.research.methods.job import TaskData
from packnet_tf.apps.research.methods.packed import prunes
from packnet_tf.apps.research.methods.rivals import masks
from packnet_tf.apps.research.methods.rivals.kernels import (
    ComputedKernel,
    LowRankKernel,
    MaskedKernel,
    low_rank,
)
from packnet_tf.apps.research.methods.rivals.parts import Kernel, Parts
from packnet_tf.apps.research.methods.rivals.store import Shapes, Store
from packnet_tf.apps.research.runs import Run
from packnet_tf.packing.pruning import magnitude
from packnet_tf.packing.weight import values_of
from packnet_tf.training.schedules import ask


class Approach:
    """A rival. This class is batchnorm_only: kernels stay as they are.

    Args:
        run: the run, whose options are those of the method.

    Source: Frankle, Schwab & Morcos, Training BatchNorm and Only BatchNorm, ICLR 2021; for tasks,
    Mudrakarta et al., K For The Price Of 1, ICLR 2019.
    """

    def __init__(self, run: Run):
        self.run, self.options = run, run.options

    @property
    def norms(self) -> str:
        """Whose normalisation a task has, see `Parts`."""
        return self.options.get("norms", "own")

    def begin(self, parts: Parts, trained: bool) -> Store:
        """Returns what all tasks share before the first one."""
        kernels = [kernel.variable for kernel in parts.kernels]
        return Store(values_of(kernels), values_of(parts.rest))

    def compute(
        self, parts: Parts, store: Store, task: TaskData, rate: float
    ) -> list[ComputedKernel]:
        """Returns the computed kernels of the next task.

        Args:
            parts: those of its trunk, with the shared kernels.
            store: what earlier tasks left.
            task: the task.
            rate: its learning rate.
        """
        return []

    def callbacks(self, task: TaskData, computed: Sequence) -> list[keras.callbacks.Callback]:
        """Returns further callbacks for its training."""
        return []

    def keep(self, store: Store, computed: Sequence) -> list[np.ndarray]:
        """Updates the shared kernels after training; returns the task's `extra`, see `Addition`."""
        return []

    def extra_shapes(self, parts: Parts) -> Shapes:
        """Returns the shapes of the arrays of `extra`."""
        return []

    def kernels(self, store: Store, place: int) -> list[np.ndarray]:
        """Returns the kernels as a task sees them.

        Args:
            store: what all tasks have.
            place: the 0-based place of the task.
        """
        return store.shared


class LowRank(Approach):
    """Lora: every kernel gets the product of two small matrices."""

    def compute(self, parts, store, task, rate):
        rank = self.options["rank"]
        return [LowRankKernel(kernel.variable, kernel.matrix, rank) for kernel in parts.kernels]

    def keep(self, store, computed):
        return [value for part in computed for value in values_of([part.first, part.second])]

    def extra_shapes(self, parts):
        shapes = []
        for rows, columns in (kernel.matrix for kernel in parts.kernels):
            rank = min(self.options["rank"], rows, columns)
            shapes += [(rows, rank), (rank, columns)]
        return shapes

    def kernels(self, store, place):
        extra = store.additions[place].extra
        triples = zip(store.shared, extra[::2], extra[1::2], strict=True)
        return [ops.convert_to_numpy(low_rank(*map(ops.convert_to_tensor, t))) for t in triples]


class Masked(Approach):
    """A mask for every kernel. This class is piggyback: masks of fixed weights.

    Source: Mallya, Davis & Lazebnik, Piggyback, ECCV 2018, section 3.
    """

    trains_weights, picks, by_size = False, False, False

    def compute(self, parts, store, task, rate):
        score_rate = self.options.get("score_rate")
        factor = 1.0 if score_rate is None or rate == 0 else score_rate / rate
        taken = self.taken(store) if self.trains_weights else [None] * len(parts.kernels)
        return [
            MaskedKernel(
                kernel.variable,
                self.scores(kernel),
                self.choose,
                factor,
                old,
                self.picks,
                self.by_size,
            )
            for kernel, old in zip(parts.kernels, taken, strict=True)
        ]

    def choose(self, scores):
        """Returns the mask of scores."""
        return masks.at_least(scores)

    def scores(self, kernel: Kernel) -> np.ndarray:
        """Returns the first scores of a task."""
        return np.full(kernel.shape, masks.FIRST, "float32")

    def taken(self, store: Store) -> list[np.ndarray]:
        """Returns the weights that some earlier task sees, for every kernel."""
        seen = [np.zeros(kernel.shape, bool) for kernel in store.shared]
        for addition in store.additions:
            seen = [old | new for old, new in zip(seen, addition.extra, strict=True)]
        return seen

    def keep(self, store, computed):
        store.shared = [np.array(ops.convert_to_numpy(part.shared())) for part in computed]
        return [part.mask() for part in computed]

    def extra_shapes(self, parts):
        return parts.shapes

    def kernels(self, store, place):
        pairs = zip(store.shared, store.additions[place].extra, strict=True)
        return [np.where(mask, values, np.float32(0)) for values, mask in pairs]


class TopShare(Masked):
    """Masks of a fixed share of every kernel, those of the largest scores by absolute value."""

    by_size = True

    def choose(self, scores):
        return masks.top_share(scores, self.options["share"])

    def scores(self, kernel):
        if self.options["scores"] == "magnitude":
            return np.abs(ops.convert_to_numpy(kernel.variable))
        bound = kernel.matrix[0] ** -0.5
        return ops.convert_to_numpy(keras.random.uniform(kernel.shape, -bound, bound))


class SuperSup(TopShare):
    """Supsup: masks of random weights, the same for all tasks, or of the trunk's.

    Source: Wortsman et al., Supermasks in Superposition, NeurIPS 2020, section 3.
    """

    def begin(self, parts, trained):
        store = super().begin(parts, trained)
        if self.options["weights"] == "random":
            store.seed = self.run.seed
            rng, share = np.random.default_rng(store.seed), self.options["share"]
            store.shared = [
                masks.signed_constants(kernel.shape, kernel.matrix[0], share, rng)
                for kernel in parts.kernels
            ]
        return store

    def compute(self, parts, store, task, rate):
        if store.seed is not None:
            parts.forget()  # normalisation and biases of a trunk that is not there
        return super().compute(parts, store, task, rate)


class WinningSubnetworks(TopShare):
    """WSN: masks of weights that train until a task sees them.

    Source: Kang et al., Forget-free Continual Learning with Winning Subnetworks, ICML 2022,
    section 3.
    """

    trains_weights = True


class Picking(Masked):
    """CPG without growing: a task picks from taken weights, and gets weights of its own.

    Weights that a task releases are 0 for the next one, as in the paper's code.

    Source: Hung et al., Compacting, Picking and Growing, NeurIPS 2019, section 3.
    """

    trains_weights, picks = True, True

    def begin(self, parts, trained):
        store = super().begin(parts, trained)
        released = self.options["base"] if trained else None
        self.base = [
            np.zeros(kernel.shape, bool)
            if released is None
            else ~magnitude(kernel, np.ones(kernel.shape, bool), released)
            for kernel in store.shared
        ]
        return store

    def taken(self, store):
        pairs = zip(super().taken(store), self.base, strict=True)
        return [seen | base for seen, base in pairs]

    def keep(self, store, computed):
        taken, extra = self.taken(store), super().keep(store, computed)
        every = zip(store.shared, taken, extra, strict=True)
        store.shared = [np.where(old | own, values, np.float32(0)) for values, old, own in every]
        return extra

    def callbacks(self, task, computed):
        ratio = prunes(self.options["prune"], len(self.run.tasks))[task.place]
        return [Releasing(computed, task, ratio, self.options["gradual"])]


class Releasing(keras.callbacks.Callback):
    """Releases weights while a task trains, on the schedule of packing.

    Args:
        computed: the masked kernels.
        task: the task.
        ratio: share of its claim to release by `prune_epoch`.
        gradual: whether to release in several steps before.
    """

    def __init__(self, computed: Sequence[MaskedKernel], task: TaskData, ratio: float, gradual):
        super().__init__()
        self._computed, self._ratio = computed, ratio
        self._turn, self._steps = task.settings.prune_epoch, task.steps
        way = rates.pruning(ratio, self._turn, task.steps, gradual)
        self._schedule: Callable | None = way if callable(way) else None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if epoch == self._turn:
            self._release(self._ratio)

    def on_train_batch_begin(self, batch, logs=None):
        if self._schedule is not None and self._epoch < self._turn:
            due, sparsity = ask(self._schedule, self._epoch * self._steps + batch)
            if due:
                self._release(sparsity)

    def _release(self, sparsity: float) -> None:
        for part in self._computed:
            part.release(sparsity)


APPROACHES: dict[str, type[Approach]] = {
    "batchnorm_only": Approach,
    "lora": LowRank,
    "piggyback": Masked,
    "supsup": SuperSup,
    "wsn": WinningSubnetworks,
    "cpg": Picking,
}
