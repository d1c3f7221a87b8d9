"""A trunk whose kernels are computed from other variables while it trains."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from packnet_tf.apps.research.methods.rivals.masks import straight_through
from packnet_tf.packing.pruning import magnitude


class ComputedKernel(keras.layers.Layer):
    """The variables from which a task's kernel is computed.

    Args:
        kernel: the variable of the trunk whose value is replaced during calls.
        trains: whether this variable itself trains.
    """

    def __init__(self, kernel: keras.Variable, trains: bool):
        super().__init__(autocast=False)
        kernel.trainable = trains
        self.kernel, self.built = kernel, True

    def value(self):
        """Returns the kernel as the task trains it, a tensor of the kernel's shape."""
        raise NotImplementedError

    def variable(self, name: str, value: np.ndarray, trainable: bool = False) -> keras.Variable:
        """Adds a variable with this value."""
        return self.add_weight(
            name=name, shape=value.shape, dtype=value.dtype.name, trainable=trainable,
            initializer=lambda *_, **__: ops.convert_to_tensor(value),
        )  # fmt: skip


class MaskedKernel(ComputedKernel):
    """A kernel of which a task sees the weights that scores choose, and 0 elsewhere.

    Args:
        kernel: the variable of the trunk, with the values that all tasks share.
        scores: float array of its shape, the first scores.
        choose: function from scores to a bool tensor.
        factor: the learning rate of scores, relative to the optimizer's. Scores are this many times
            the variable that it trains, which gets their gradient as it is.
        taken: bool array of the kernel's shape, True for weights that may not change: those of
            earlier tasks. None: no weight changes.
        picks: whether scores choose among taken weights alone. The task then sees all others,
            except those that `release` removes.
        by_size: whether `choose` gets the absolute values of the scores.
    """

    def __init__(
        self,
        kernel: keras.Variable,
        scores: np.ndarray,
        choose: Callable,
        factor: float = 1.0,
        taken: np.ndarray | None = None,
        picks: bool = False,
        by_size: bool = False,
    ):
        super().__init__(kernel, trains=taken is not None and not taken.all())
        self.choose, self.factor, self.by_size = choose, factor, by_size
        self.scores = self.variable("scores", (scores / factor).astype("float32"), trainable=True)
        self.taken = self.fixed = self.claim = None
        if kernel.trainable:
            self.taken = self.variable("taken", taken)
            # Not the optimizer's, so neither momentum nor decay can move it.
            self.fixed = self.variable("fixed", ops.convert_to_numpy(kernel))
        if picks and kernel.trainable:
            self.claim = self.variable("claim", ~taken)
            self.claimed = int(np.count_nonzero(~taken))

    def value(self):
        scores = self._scores()
        return straight_through(self.shared(), scores, self._mask(scores))

    def shared(self):
        """Returns the values of all weights, chosen or not, a float tensor."""
        if self.taken is None:
            return self.kernel.value
        return ops.where(self.taken.value, self.fixed.value, self.kernel.value)

    def mask(self) -> np.ndarray:
        """Returns which weights the task sees, a bool array of the kernel's shape."""
        return np.array(ops.convert_to_numpy(self._mask(self._scores())))

    def release(self, sparsity: float) -> None:
        """Removes the task's smallest weights until this share of its first claim is removed.

        Args:
            sparsity: a share, 0 to 1; nothing happens if as much is removed already.
        """
        if self.claim is None:
            return
        claim = ops.convert_to_numpy(self.claim)
        left = int(np.count_nonzero(claim))
        count = round(sparsity * self.claimed) - (self.claimed - left)
        if count > 0:
            small = magnitude(ops.convert_to_numpy(self.kernel), claim, count / left)
            self.claim.assign(claim & ~small)

    def _scores(self):
        trained = self.scores.value
        scores = trained + ops.stop_gradient(trained * (self.factor - 1.0))
        return ops.abs(scores) if self.by_size else scores

    def _mask(self, scores):
        chosen = self.choose(scores)
        if self.claim is None:
            return chosen
        return ops.where(self.taken.value, chosen, self.claim.value)


class LowRankKernel(ComputedKernel):
    """A fixed kernel plus a product of two matrices, the second of which starts at 0.

    Args:
        kernel: the variable of the trunk.
        matrix: rows and columns of the kernel as a matrix.
        rank: rank of the product, at most the smaller of both.

    Source: Hu et al., LoRA, ICLR 2022, section 4.1, with a scale of 1.
    """

    def __init__(self, kernel: keras.Variable, matrix: tuple[int, int], rank: int):
        super().__init__(kernel, trains=False)
        rows, columns = matrix
        rank = min(rank, rows, columns)
        first = keras.random.normal((rows, rank), stddev=rank**-0.5)
        self.first = self.variable("first", ops.convert_to_numpy(first), trainable=True)
        self.second = self.variable("second", np.zeros((rank, columns), "float32"), trainable=True)

    def value(self):
        return low_rank(self.kernel.value, self.first.value, self.second.value)


def low_rank(kernel, first, second):
    """Adds the product of two matrices to a kernel, a float tensor of any shape."""
    return kernel + ops.reshape(ops.matmul(first, second), kernel.shape)


class ComputedTrunk(keras.Model):
    """A trunk that is called with computed kernels in place of its own.

    Args:
        trunk: a functional model.
        kernels: the computed kernels; other kernels of the trunk keep their values.
    """

    def __init__(self, trunk: keras.Model, kernels: Sequence[ComputedKernel]):
        super().__init__(autocast=False, name=trunk.name)
        self.trunk, self.kernels = trunk, list(kernels)
        self.built = True  # its parts are

    @property
    def input_shape(self) -> tuple:
        return self.trunk.input_shape

    def call(self, images, training=None):
        values = [(part.kernel, part.value()) for part in self.kernels]
        with keras.StatelessScope(state_mapping=values) as scope:
            features = self.trunk(images, training=training)
        replaced = {id(kernel) for kernel, _ in values}
        for variable in self.trunk.variables:  # moving statistics, and seeds of dropout
            new = scope.get_current_value(variable)
            if new is not None and id(variable) not in replaced:
                variable.assign(new)
        return features
