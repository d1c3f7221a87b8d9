"""The training loop: each call of a traced function runs many steps without reading results."""

import time
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from packnet_tf.backend.types import Tensors
from packnet_tf.training.phases import Phases

SECONDS_AT_ONCE = 0.5  # target duration of a call: progress stays visible, and calls stay few


class Loop:
    """Trains one model; one trace serves all epochs and phases.

    Args:
        model: a compiled model whose optimizer and metrics are built.
        jit_compile: whether to compile the step with XLA.
        steps_per_execution: steps per call; None: as many as run in half a second.
    """

    def __init__(
        self, model: keras.Model, jit_compile: bool, steps_per_execution: int | None
    ) -> None:
        self._at_once = steps_per_execution or 1
        self._adapts = steps_per_execution is None
        self._run = _traced(model, model.distribute_strategy, jit_compile)

    def epoch(
        self, batches: Iterator, phases: Phases, step: int, watch: Callable[[int], None]
    ) -> tuple[int, int]:
        """Trains on all batches of an iterator, and prunes between calls if that is due.

        Args:
            batches: an iterator over a (distributed) dataset.
            phases: the task's phases; they are told about the steps.
            step: number of optimizer steps so far.
            watch: called with the number of steps since its last call.

        Returns:
            The numbers of steps and of examples, the latter over all replicas.
        """
        steps = examples = 0
        while True:
            limit = phases.steps_until_due(step + steps, self._at_once)
            began = time.perf_counter()
            done, seen = (int(n) for n in self._run(batches, tf.constant(limit)))
            if self._adapts and steps:  # the first call includes tracing
                seconds = (time.perf_counter() - began) / max(done, 1)
                self._at_once = min(max(int(SECONDS_AT_ONCE / seconds), 1), 2 * self._at_once)
            steps, examples = steps + done, examples + seen
            if done:
                watch(done)
                phases.steps_done(step + steps)
            if done < limit:
                return steps, examples


def _traced(
    model: keras.Model, strategy: tf.distribute.Strategy, jit_compile: bool
) -> Callable[[Iterator, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    replicas = strategy.num_replicas_in_sync

    def step(batch: Tensors) -> tf.Tensor:
        model.train_step(batch)  # Keras's own: GradientTape, loss scaling, accumulation, metrics
        return tf.shape(keras.tree.flatten(batch)[0])[0]

    def on_all_replicas(batch: Tensors) -> tf.Tensor:
        return strategy.run(step, args=(batch,))

    if jit_compile:
        on_all_replicas = tf.function(on_all_replicas, jit_compile=True, reduce_retracing=True)

    @tf.function(reduce_retracing=True)
    def run(batches: tf.data.Iterator, limit: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        done, examples, more = tf.constant(0), tf.constant(0), tf.constant(True)
        while more and done < limit:
            batch = batches.get_next_as_optional()
            more = batch.has_value()
            if more:
                sizes = strategy.experimental_local_results(on_all_replicas(batch.get_value()))
                # Other workers' replicas are not visible here; their batches are as large.
                examples += tf.add_n(list(sizes)) * (replicas // len(sizes))
                done += 1
        return done, examples

    return run
