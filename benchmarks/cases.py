"""Networks trained in one way or another, packed and plain, whose steps several benches measure."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.trunks import CLASSES, build_trunk, packed

# Network, pixels, batch size, and what a packed step may cost.
NETWORKS = (
    ("TinyDarknet", 96, 32, 1.02),
    ("MobileNetV2", 96, 32, 1.02),
    ("ResNet50", 64, 32, 1.02),
    ("VGG16", 64, 8, 1.10),
    ("VGG16", 64, 32, 1.10),
)
MODES = ("graph", "XLA", "mixed_bfloat16")
OPTIMIZERS = ("SGD", "Adam")


@dataclasses.dataclass(frozen=True)
class Case:
    """One network trained in one way.

    Attributes:
        network, pixels, batch: see `build_trunk`.
        mode: "graph", "XLA" or "mixed_bfloat16" (in graph mode).
        optimizer: "SGD" (with momentum 0.9) or "Adam".
        goal: what the ratio of the steps shall not exceed.
    """

    network: str
    pixels: int
    batch: int
    mode: str
    optimizer: str
    goal: float

    @property
    def title(self) -> str:
        return f"{self.network} {self.pixels} px x {self.batch}, {self.mode}, {self.optimizer}"


def all_cases() -> list[Case]:
    """All networks in all modes with all optimizers."""
    return [
        Case(network, pixels, batch, mode, optimizer, goal)
        for network, pixels, batch, goal in NETWORKS
        for mode in MODES
        for optimizer in OPTIMIZERS
    ]


def wanted(cases: Sequence, title: Callable[..., str], only, say) -> Iterator:
    """The cases whose title is wanted, each announced before its turn.

    Args:
        cases: any.
        title: of a case.
        only: whether a title is wanted.
        say: takes the title.
    """
    for case in cases:
        if only(title(case)):
            say(title(case))
            yield case


def plain_model(case: Case):
    """The network with a head, as anybody would write it."""
    import keras

    trunk = build_trunk(case.network, case.pixels)
    return keras.Model(trunk.inputs, keras.layers.Dense(CLASSES)(trunk.output))


def packed_model(case: Case, before: int):
    """The model of the task that comes after so many tasks in a pack."""
    import keras

    net = packed(build_trunk(case.network, case.pixels), before + 1, before)
    return net.add_task("next", keras.layers.Dense(CLASSES))


def compile_model(model, case: Case) -> None:
    """Compiles it as the case says."""
    model.compile(optimizer(case)(1e-4), loss(), metrics=["accuracy"], jit_compile=by_xla(case))


def by_xla(case: Case) -> bool:
    """Whether XLA compiles the steps; on JAX it does in every mode, there is no other graph."""
    import keras

    return case.mode == "XLA" or keras.backend.backend() == "jax"


def optimizer(case: Case) -> Callable:
    """From a learning rate to the optimizer of a case."""
    import keras

    if case.optimizer == "Adam":
        return keras.optimizers.Adam
    return lambda rate: keras.optimizers.SGD(rate, momentum=0.9)


def loss():
    """Of logits and whole numbers."""
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def random_batch(case: Case):
    """Images and labels, float32 and int32."""
    rng = np.random.default_rng(0)
    shape = (case.batch, case.pixels, case.pixels, 3)
    return rng.random(shape, np.float32), rng.integers(0, CLASSES, case.batch, np.int32)


def repeated(batch, steps: int, tuned: bool = False):
    """A dataset of a batch, again and again; as tf.data makes it, or without its tuner."""
    import tensorflow as tf

    from packnet_tf.trainer.data import untuned

    data = tf.data.Dataset.from_tensors(batch).repeat(steps).prefetch(2)
    return data if tuned else untuned(data)


def fit_steps(model, batch, steps: int, tuned: bool = False) -> None:
    """An epoch of so many steps."""
    model.fit(repeated(batch, steps, tuned), verbose=0, shuffle=False)
