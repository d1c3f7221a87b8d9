"""Time of a training step of a second task: without a stem, with one, and on its stored features.

The stem is frozen then, so its features could be computed once per image, where nothing augments
the images. The network after the stem is plain Keras.
"""

from functools import partial

from benchmarks.command import in_process, run
from benchmarks.networks import CLASSES, Case, build_trunk, packed
from benchmarks.rows import Row, in_turns, timed

STEMS = {"MobileNetV2": "block_12_add", "TinyDarknet": "max_pooling2d_3"}
CASES = {case.title: case for name in STEMS for case in [Case(name, 96, 32)]}
STEPS = 8  # turns of one step per model, for one repeat


def measure(case: Case, turns: int) -> list[Row]:
    """Measures a network."""
    import keras

    keras.utils.set_random_seed(1)
    images, labels = case.random_batch()
    trunk, stem = build_trunk(case.network, case.pixels), STEMS[case.network]
    models = {
        side: case.compile(
            packed(trunk, 2, 1, chosen).add_task("next", keras.layers.Dense(CLASSES))
        )
        for side, chosen in (("no stem", None), ("stem", stem))
    }
    middle = trunk.get_layer(stem).output
    features = keras.Model(trunk.input, middle).predict(images, verbose=0)
    after = keras.Model(middle, keras.layers.Dense(CLASSES)(trunk.output))
    sides = {side: partial(model.train_on_batch, images, labels) for side, model in models.items()}
    sides["stored features"] = partial(case.compile(after).train_on_batch, features, labels)
    times = in_turns(sides, STEPS * turns, warm_up=2)
    return [timed(times, side, "no stem") for side in ("stem", "stored features")]


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=2)
