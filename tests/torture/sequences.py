"""Random sequences of verbs, with training under ten optimizers between them."""

import copy
import pathlib
import random
from collections.abc import Callable

import keras
import numpy as np
from keras import optimizers

import packnet_tf
from helpers.pack_helpers import SPARSE, conv_trunk
from torture import subjects
from torture.outcome import ALIEN, DIFFERENT, LOST, WHOLE, Fault, refused

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "SGD": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda: optimizers.Adam(0.05, use_ema=True, ema_overwrite_frequency=2),
    "AdamW": lambda: optimizers.AdamW(0.05, weight_decay=0.1),
    "Lion": lambda: optimizers.Lion(0.01, weight_decay=0.1),
    "Adafactor": lambda: optimizers.Adafactor(0.05),
    "RMSprop": lambda: optimizers.RMSprop(0.05, momentum=0.9, clipnorm=1.0),
    "Nadam": lambda: optimizers.Nadam(0.05, global_clipnorm=1.0),
    "Adagrad": lambda: optimizers.Adagrad(0.1, gradient_accumulation_steps=2),
    "Ftrl": lambda: optimizers.Ftrl(0.1, l1_regularization_strength=0.01),
    "Adamax": lambda: optimizers.Adamax(0.05, clipvalue=0.5),
}
STEPS = 10
POLICIES = ("shared", "per_task"), ("shared", "per_task"), ("trunk", "zero", "fresh")


class Sequence:
    """A pack, and the answers of its committed tasks at their commit.

    Args:
        rng: what chooses.
        folder: where to save.
    """

    def __init__(self, rng: random.Random, folder: pathlib.Path) -> None:
        self._rng, self._folder, self._saved = rng, folder, {}
        biases, norms, restart = (rng.choice(values) for values in POLICIES)
        self.net = packnet_tf.PackNet(conv_trunk(), biases, norms, restart)
        self.known: subjects.Answers = {}
        self._views: dict[str, keras.Model] = {}
        self.done: list[str] = []
        self._number = 0
        self.optimizer = rng.choice(list(OPTIMIZERS))

    def step(self) -> None:
        """Does something, and checks that every committed task answers as before.

        Raises:
            Fault: it does not.
        """
        possible = [self.add, self.save, self.load, self.copy, self.look, self.release]
        if self.net.open_model is not None:
            possible = [self.fit, self.fit, self.prune, self.commit, self.finish] * 2 + possible
            possible.append(self.discard)
        verb = self._rng.choice([*possible, *[self.add] * 4])
        self.done.append(verb.__name__)
        try:
            verb()
        except Exception as error:
            self.done[-1] += f" ({refused(error)})"
        self.check()

    def check(self, every: bool = False) -> None:
        """Compares the answers of all committed tasks: of old views, and of one or all new ones.

        Raises:
            Fault: a task is lost or answers differently.
        """
        tasks = self.net.tasks
        new = tasks if every else self._rng.sample(tasks, min(1, len(tasks)))
        self._views |= {
            task: self.net.task_model(task) for task in tasks if task not in self._views
        }
        views = [self._views[task] for task in tasks]
        found = [(task, view) for task, view in zip(tasks, views, strict=True)]
        found += [(task, self.net.task_model(task)) for task in new]
        wrong = [t for t, view in found if subjects.answer(view) != self.known.get(t)]
        if wrong or {*tasks} != {*self.known}:
            text = f"{wrong or tasks} under {self.optimizer} after {', '.join(self.done)}"
            raise Fault(DIFFERENT if wrong else LOST, text)

    def goes_on_with(self, net: packnet_tf.PackNet) -> None:
        """Takes another pack."""
        self.net, self._views = net, {}

    def add(self) -> None:
        """Adds a task of any kind."""
        self._number += 1
        rng, tasks = self._rng, self.net.tasks
        overlay = rng.choice([None, None, 0.1])
        claim = 1.0 if overlay else rng.choice([1.0, 0.5])
        reuse = rng.choice(["all", "all", "none", list(tasks[:1])])
        model = self.net.add_task(
            f"t{self._number}", subjects.head(), claim_ratio=claim, reuse=reuse, overlay=overlay
        )
        self._compile(model)

    def _compile(self, model: keras.Model) -> None:
        # Tracing takes most of the time, and the steps are the same without.
        eager = self._rng.random() < 0.7
        optimizer = OPTIMIZERS[self.optimizer]()
        model.compile(optimizer, SPARSE, jit_compile=False, run_eagerly=eager)

    def fit(self) -> None:
        """Trains the open task; after a load, under the same optimizer from the start."""
        model = self.net.open_model
        if not model.compiled:
            self._compile(model)
        x = subjects.images()
        y = np.arange(len(x)) % 3
        if self._rng.random() < 0.3:
            model.train_on_batch(x, y)
        else:
            model.fit(x, y, batch_size=2, epochs=1, verbose=0)

    def prune(self) -> None:
        """Prunes the open task."""
        if self._rng.random() < 0.3:
            self.net.prune_to(self._rng.random())
        else:
            self.net.prune(self._rng.choice([0.0, 0.5, 0.5, 0.9, 1.0]))

    def commit(self) -> None:
        """Commits the open task and records its answers."""
        name = self.net.open_model.task_name
        self.net.commit()
        self._views[name] = self.net.task_model(name)
        self.known[name] = subjects.answer(self._views[name])

    def finish(self) -> None:
        """Trains, prunes and commits."""
        self.fit()
        self.net.prune(0.5)
        self.commit()

    def discard(self) -> None:
        """Drops the open task."""
        self.net.discard()

    def release(self) -> None:
        """Removes a task, which may be refused."""
        if self.net.tasks:
            name = self._rng.choice(self.net.tasks)
            self.net.release(name)
            del self.known[name], self._views[name]

    def save(self) -> None:
        """Saves the pack."""
        path = self._folder / f"{self._rng.randrange(2)}.keras"
        self.net.save(path)
        self._saved[path] = dict(self.known)

    def load(self) -> None:
        """Goes on with a pack from a file."""
        if self._saved:
            path = self._rng.choice(list(self._saved))
            self.goes_on_with(packnet_tf.load(path))
            self.known = dict(self._saved[path])

    def copy(self) -> None:
        """Goes on with a copy."""
        self.goes_on_with(copy.deepcopy(self.net))

    def look(self) -> None:
        """Uses everything that must not change the pack."""
        self.net.capacity()
        self.net.storage()
        self.net.preview()(subjects.images())
        for task in self.net.tasks:
            self.net.unpack(task)(subjects.images())


def attack(seed: int, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Runs a sequence."""
    keras.utils.set_random_seed(seed)
    sequence = Sequence(random.Random(seed), folder)
    try:
        for _ in range(STEPS):
            sequence.step()
        sequence.check(every=True)
    except Fault:
        raise
    except Exception as error:
        raise Fault(ALIEN, f"after {', '.join(sequence.done)}: {error!r}") from error
    finally:
        keras.backend.clear_session(free_memory=False)
    return WHOLE
