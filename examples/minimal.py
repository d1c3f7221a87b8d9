"""PackNet in plain Keras and NumPy: two tasks in one network, and the first is not forgotten.

This is the method of https://arxiv.org/abs/1711.05769 without packnet_tf. Every weight has an
owner: the number of a task, or 0 if it is free. A task trains all free weights, frees the smallest,
retrains the others, and owns them from then on. It sees its own weights and those of earlier tasks.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits


class PackedDense(keras.layers.Layer):
    """A dense layer whose kernel holds the weights of several tasks."""

    def build(self, shape):
        self.trained = self.add_weight(shape=(shape[-1], 64), name="trained")  # what optimizers get
        fixed = {"initializer": "zeros", "trainable": False}
        self.kept = self.add_weight(shape=(shape[-1], 64), name="kept", **fixed)
        self.owner = self.add_weight(shape=(shape[-1], 64), dtype="int32", name="owner", **fixed)
        self.open = self.add_weight(shape=(), dtype="int32", name="open", **fixed)  # it trains
        self.task = self.add_weight(shape=(), dtype="int32", name="task", **fixed)  # it is computed

    def call(self, inputs):
        # Select, do not multiply by a mask: weights that others own get no gradient, and what is
        # kept is not a trainable variable, so weight decay and momentum cannot change it either.
        values = keras.ops.where(self.owner == self.open, self.trained, self.kept)
        seen = (self.owner >= 1) & (self.owner <= self.task)
        return keras.ops.relu(inputs @ keras.ops.where(seen, values, 0.0))

    def add(self, task):  # it claims all free weights
        self.open.assign(task)
        self.task.assign(task)
        self.owner.assign(keras.ops.where(self.owner == 0, task, self.owner))

    def prune(self, ratio):  # frees the smallest of the open task's weights
        owner = keras.ops.convert_to_numpy(self.owner).copy()
        mine = np.argwhere(owner == self.open)
        sizes = np.abs(keras.ops.convert_to_numpy(self.trained))[tuple(mine.T)]
        released = mine[np.argsort(sizes, kind="stable")[: round(ratio * len(mine))]]
        owner[tuple(released.T)] = 0
        self.owner.assign(owner)

    def commit(self):  # keeps the open task's weights where no optimizer reaches them
        self.kept.assign(keras.ops.where(self.owner == self.open, self.trained, self.kept))


keras.utils.set_random_seed(0)
images, digits = load_digits(return_X_y=True)
images, held_out = images.astype("float32") / 16, np.arange(len(images)) % 5 == 0
packed, models, tests, before = [PackedDense(), PackedDense()], {}, {}, {}


def logits(task):
    for layer in packed:
        layer.task.assign(task)
    return models[task].predict(tests[task][0], verbose=0)


for task, (first, ratio) in {1: (0, 0.5), 2: (5, 0.0)}.items():  # digits 0 to 4, then 5 to 9
    mine = (digits >= first) & (digits < first + 5)
    x, y = images[mine & ~held_out], digits[mine & ~held_out] - first
    tests[task] = images[mine & held_out], digits[mine & held_out] - first
    models[task] = model = keras.Sequential([keras.Input((64,)), *packed, keras.layers.Dense(5)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(0.003), loss, metrics=["accuracy"])
    for layer in packed:
        layer.add(task)
    model.fit(x, y, epochs=15, verbose=0)
    for layer in packed:
        layer.prune(ratio)
    pruned = model.evaluate(*tests[task], verbose=0)[1]
    model.fit(x, y, epochs=15, verbose=0)
    for layer in packed:
        layer.commit()
    before[task] = logits(task)
    retrained = model.evaluate(*tests[task], verbose=0)[1]
    print(f"task {task}: {pruned:.1%} after pruning {ratio:.0%}, {retrained:.1%} after retraining")
assert np.array_equal(logits(1), before[1])  # to the bit, after all of task 2's training
print(f"task 1: {models[1].evaluate(*tests[1], verbose=0)[1]:.1%} after task 2, to the bit")
