"""Gradual pruning: promise 4 along a schedule, and tensorflow-model-optimization's own ones."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import (
    SPARSE,
    claims,
    compiled,
    conv_trunk,
    data,
    fit,
    kernels,
    logits,
    mlp_trunk,
    packed,
    run_python,
    weights_of,
)
from packnet_tf import PackNetCallback
from packnet_tf.training import numpy_schedules
from packnet_tf.training.schedules import LAST_STEP, _tfmot_schedules, ask, due, final_sparsity


def every_ten(step):
    return step % 10 == 0, min(0.5, step / 50)


def opened(trunk=mlp_trunk, **ratios):
    net = packed(trunk(), **ratios)
    return net, compiled(net.add_task("gradual", layers.Dense(3)))


def released(net, began):
    """By layer, how many of the weights that a task began with are released."""
    return {path: began[path] - int(np.count_nonzero(claim)) for path, claim in claims(net).items()}


class Trace(keras.callbacks.Callback):
    """Notes the claims after every step."""

    def __init__(self, net):
        super().__init__()
        self.net, self.claims = net, []

    def on_train_batch_begin(self, batch, logs=None):
        self.claims.append({path: claim > 0 for path, claim in claims(self.net).items()})


@pytest.mark.parametrize(
    ("steps", "begun", "expected"),
    [
        (range(1, 10), False, None),
        (range(0, 1), False, 0.0),
        (range(1, 11), False, 0.2),
        (range(1, 25), False, 0.4),
        (range(21, 24), True, None),
        (range(25, 28), True, 0.5),  # it has ended, whatever should_prune says
        (range(25, 28), False, None),
        (range(0), True, None),
    ],
)
def test_what_is_due_is_what_the_schedule_said_last(steps, begun, expected):
    assert due(every_ten, steps, begun, 0.5) == expected


def test_a_schedule_ends_where_it_stays():
    assert final_sparsity(every_ten) == 0.5
    assert final_sparsity(packnet_tf.polynomial_decay(0.1, 0.7, 5, 20)) == 0.7
    assert final_sparsity(packnet_tf.constant_sparsity(0.3, 5)) == 0.3


def test_the_decay_is_the_one_of_its_source():
    schedule = packnet_tf.polynomial_decay(0.2, 0.8, begin_step=10, end_step=30, frequency=10)
    for step, should, done in [(10, True, 0.0), (15, False, 0.25), (20, True, 0.5), (30, True, 1)]:
        assert ask(schedule, step)[0] is should
        assert ask(schedule, step)[1] == pytest.approx(0.8 - 0.6 * (1 - done) ** 3, abs=1e-6)
    assert ask(schedule, 9) == (False, pytest.approx(0.2))
    assert ask(schedule, LAST_STEP) == (False, 0.8)


def originals_and_ours(name, *settings):
    original = getattr(_tfmot_schedules(), name)(*settings)
    ours = getattr(numpy_schedules, name)(*settings)
    begin, end = settings[1:3] if name == "ConstantSparsity" else settings[2:4]
    last = end if end >= 0 else begin + 50
    steps = {*range(max(0, begin - 2), begin + 40), *range(max(0, last - 2), last + 3), LAST_STEP}
    for step in sorted(steps):
        yield original(step), ours(step)


@pytest.mark.parametrize("begin_end", [(0, 1), (0, 10), (5, 20), (3, 997), (0, 100_000)])
@pytest.mark.parametrize("power", [1, 2, 3, 4, 0.5, 2.5])
def test_our_decay_equals_the_one_of_tfmot_step_by_step(begin_end, power):
    for sparsities in [(0.0, 0.75), (0.1, 0.7), (0.5, 0.3), (0.05, 0.999)]:
        settings = (*sparsities, *begin_end, power, 3)
        for (should, sparsity), ours in originals_and_ours("PolynomialDecay", *settings):
            assert ours == (bool(should), sparsity.numpy())
            assert ask(lambda step, ours=ours: ours, 0)[1] == float(str(sparsity.numpy()))


@pytest.mark.parametrize("end", [-1, 7, 30])
def test_our_constant_sparsity_equals_the_one_of_tfmot_step_by_step(end):
    for (should, sparsity), ours in originals_and_ours("ConstantSparsity", 0.3, 7, end, 4):
        assert ours == (bool(should), sparsity.numpy())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PolynomialDecay", (0.0, 1.0, 0, 10)),
        ("PolynomialDecay", (-0.1, 0.5, 0, 10)),
        ("PolynomialDecay", (0.0, 0.5, 0, -1)),
        ("PolynomialDecay", (0.0, 0.5, 11, 10)),
        ("PolynomialDecay", (0.0, 0.5, 0, 10, 3, 0)),
        ("ConstantSparsity", (1.0, 0)),
        ("ConstantSparsity", (0.5, -1)),
        ("ConstantSparsity", (0.5, 5, 4)),
        ("ConstantSparsity", (0.5, 0, -2)),
    ],
)
def test_ours_refuse_what_tfmot_refuses(name, settings):
    for module in (_tfmot_schedules(), numpy_schedules):
        with pytest.raises(ValueError):
            getattr(module, name)(*settings)


@pytest.mark.slow
def test_schedules_work_where_tfmot_cannot_be_imported():
    run = run_python(
        """
        import sys
        sys.modules["tensorflow_model_optimization"] = None  # its import raises ImportError
        import packnet_tf
        from helpers.pack_helpers import *
        net = packnet_tf.PackNet(mlp_trunk())
        model = compiled(net.add_task("one", layers.Dense(3)))
        schedule = packnet_tf.polynomial_decay(0.0, 0.75, 0, 4, frequency=3)
        assert type(schedule).__module__ == "packnet_tf.training.numpy_schedules"
        fit(model, *data(model), packnet_tf.PackNetCallback(schedule=schedule), epochs=3)
        assert net.capacity().sum()["free"] == 240, net.capacity()  # as with tfmot's, above
        assert packnet_tf.constant_sparsity(0.5, 0)(100) == (True, 0.5)
        """
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("before", [None, *slow("0")])
def test_importing_the_schedules_leaves_tf_keras_and_the_environment_alone(before):
    run = run_python(
        """
        import os, sys
        import packnet_tf
        packnet_tf.constant_sparsity(0.5, 0)
        import tensorflow as tf, keras
        assert any(name.startswith("tensorflow_model_optimization") for name in sys.modules)
        assert tf.keras.__version__ == keras.__version__, tf.keras.__version__
        assert tf.keras.layers.Dense is keras.layers.Dense
        print(os.environ.get("TF_USE_LEGACY_KERAS"))
        """,
        **({"TF_USE_LEGACY_KERAS": before} if before else {}),
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(before)]


@pytest.mark.slow
def test_importing_tfmot_oneself_leaves_tf_keras_alone_too():
    run = run_python(
        """
        import keras, packnet_tf
        import tensorflow_model_optimization as tfmot
        import tensorflow as tf
        from helpers.pack_helpers import *
        assert tf.keras.layers.Dense is keras.layers.Dense
        for schedule, free in [
            (tfmot.sparsity.keras.PolynomialDecay(0.0, 0.75, 0, 4, frequency=3), 240),
            (tfmot.sparsity.keras.ConstantSparsity(0.25, 2, frequency=2), 80),
        ]:
            net = packnet_tf.PackNet(mlp_trunk())
            model = compiled(net.add_task("one", layers.Dense(3)))
            fit(model, *data(model), packnet_tf.PackNetCallback(schedule=schedule), epochs=3)
            assert net.capacity().sum()["free"] == free, net.capacity()
        """
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("answer", [0.5, None, (True,), (True, 1.5), (True, "much"), (True, None)])
def test_an_answer_that_is_no_pair_is_refused(answer):
    with pytest.raises(ValueError) as error:
        ask(lambda step: answer, 7)
    assert str(error.value) == (
        "A schedule returns a pair (should_prune, sparsity) for a step, sparsity from 0 to 1; for "
        f"step 7 this one returned {answer!r}. Write, for instance, lambda step: (step % 100 == 0, "
        "min(0.75, step / 1000))."
    )


@pytest.mark.any_backend
@pytest.mark.parametrize("claim_ratio", [1.0, 0.6])
@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_weights_released_early_stay_released_and_the_final_ratio_is_exact(
    claim_ratio, steps_per_execution
):
    net = packed(conv_trunk(), one=0.5)
    model = net.add_task("gradual", layers.Dense(3), claim_ratio=claim_ratio)
    began = {path: int(np.count_nonzero(claim)) for path, claim in claims(net).items()}
    compiled(model, keras.optimizers.Adam(0.01), steps_per_execution=steps_per_execution)
    trace = Trace(net)
    x, y = data(model)
    seen = []

    def schedule(step):
        seen.append(step)
        return step % 3 == 0, min(0.7, step / 10)

    # 3 steps an epoch; the schedule ends at step 7, which it would not prune at.
    callback = PackNetCallback(schedule=schedule)
    fit(model, x, y, callback, *([trace] if keras.backend.backend() != "jax" else []), epochs=5)
    assert net.tasks == ("one", "gradual")
    assert sorted(set(seen) - {LAST_STEP}) == list(range(max(set(seen) - {LAST_STEP}) + 1))
    owned = {path: weight.owner_counts(2)[2] for path, weight in weights_of(net).items()}
    assert owned == {path: n - round(0.7 * n) for path, n in began.items()}
    for earlier, later in zip(trace.claims, trace.claims[1:], strict=False):
        for path in later:
            assert not np.any(later[path] & ~earlier[path])


def test_the_sparsity_rises_step_by_step_and_is_of_what_the_task_began_with():
    net, model = opened(one=0.5)
    x, y = data(model)
    steps = {0: (True, 0.0), 2: (True, 0.25), 5: (True, 0.5)}
    callback = PackNetCallback(
        schedule=lambda step: steps.get(step, (False, 0.5 if step > 5 else 0.1))
    )
    history = fit(model, x, y, callback, epochs=3)  # 3 steps an epoch
    assert history.history["sparsity"] == pytest.approx([0.25, 0.5, 0.5])
    assert net.capacity().free == pytest.approx(0.25)


def test_released_weights_count_as_0_while_the_task_trains_on():
    net, model = opened()
    x, y = data(model)
    net.prune_to(0.25)
    first = claims(net)
    fit(model, x, y, epochs=1)
    net.prune_to(0.5)
    assert net.state.missing_to(0.5) == 0
    assert net.state.missing_to(0.75) == round(0.75 * 12 * 16) - 96 + round(0.75 * 16 * 8) - 64
    for path, claim in claims(net).items():
        assert np.count_nonzero(claim) == claim.size / 2
        assert not np.any((claim > 0) & (first[path] == 0))
        assert np.all(kernels(net)[path][claim == 0] == 0)
    assert sum(net.prune_to(0.3).values()) == 0  # what is released stays released
    net.commit()
    assert net.capacity().free == 0.5


def test_a_fit_that_ends_before_its_schedule_leaves_the_task_open():
    net, model = opened()
    x, y = data(model)
    schedule = packnet_tf.polynomial_decay(0.0, 0.5, begin_step=0, end_step=100, frequency=1)
    with pytest.warns(UserWarning, match="Training of task 'gradual' stopped at step 6") as warned:
        fit(model, x, y, PackNetCallback(schedule=schedule), epochs=2)
    (said,) = [str(one.message) for one in warned if one.category is UserWarning]
    assert said == (
        "Training of task 'gradual' stopped at step 6, before the pruning schedule reached its "
        "sparsity of 0.5, so the task is left open. Go on with fit(initial_epoch=...), give a "
        "schedule that ends earlier, or call net.prune_to(0.5), retrain, and net.commit()."
    )
    assert net.tasks == ()
    short = packnet_tf.polynomial_decay(0.0, 0.5, begin_step=0, end_step=8, frequency=1)
    fit(model, x, y, PackNetCallback(schedule=short), initial_epoch=2, epochs=4)
    assert net.tasks == ("gradual",)


def test_weights_from_before_the_last_prune_are_refused():
    net, model = opened()
    x, y = data(model)
    halfway = []

    class GoBack(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                halfway.extend(model.get_weights())

        def on_train_end(self, logs=None):
            model.set_weights(halfway)

    schedule = packnet_tf.polynomial_decay(0.0, 0.5, begin_step=0, end_step=5, frequency=1)
    with pytest.raises(RuntimeError, match="it was pruned, but its weights have since been"):
        fit(model, x, y, PackNetCallback(schedule=schedule), GoBack(), epochs=3)
    assert net.tasks == ()


def test_earlier_tasks_are_bit_exact_after_gradual_pruning():
    net = packed(conv_trunk(), one=0.5)
    x, y = data(net.task_model("one"))
    before = logits(net.task_model("one"), x)
    model = compiled(net.add_task("two", layers.Dense(3)), keras.optimizers.AdamW(0.01))
    schedule = packnet_tf.polynomial_decay(0.0, 0.5, begin_step=0, end_step=5, frequency=2)
    callback = PackNetCallback(schedule=schedule, validation_data=(x, y))
    fit(model, x, y, callback, epochs=3)
    assert set(callback.around_prune) == {"before", "after"}
    assert np.array_equal(logits(net.task_model("one"), x), before)


def test_steps_that_only_accumulate_count_as_steps():
    net, model = opened()
    model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=4), SPARSE,
                  jit_compile=False)  # fmt: skip
    x, y = data(model.trunk, size=32)
    began = {path: int(np.count_nonzero(claim)) for path, claim in claims(net).items()}
    seen = Trace(net)
    callback = PackNetCallback(schedule=lambda step: (True, min(0.5, step / 64)))
    fit(model, x, y, seen, callback, batch_size=4, epochs=5)  # 40 steps; it ends at step 32
    assert net.tasks == ("gradual",)
    for step, claim in enumerate(seen.claims):
        for path, count in began.items():
            assert count - int(claim[path].sum()) == round(min(0.5, step / 64) * count)


def test_the_rate_of_the_retraining_begins_at_the_final_sparsity():
    net, model = opened()
    x, y = data(model.trunk)
    model.compile(keras.optimizers.SGD(0.1), SPARSE, jit_compile=False)
    rates = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    callback = PackNetCallback(
        schedule=lambda step: (True, min(0.5, step / 8)), retrain_learning_rate=0.001
    )
    fit(model, x, y, watch, callback, batch_size=8, epochs=3)
    assert net.tasks == ("gradual",)
    assert rates == pytest.approx([0.1] * 4 + [0.001] * 5)


def test_a_schedule_and_a_ratio_exclude_each_other():
    with pytest.raises(ValueError) as error:
        PackNetCallback(0.75, 3, schedule=every_ten)
    assert str(error.value) == (
        "PackNetCallback takes a schedule, or prune_ratio and prune_epoch, not both: a schedule "
        "decides when and how much to prune. Write PackNetCallback(schedule=packnet_tf."
        "polynomial_decay(0.0, 0.75, begin_step=0, end_step=1000))."
    )


@pytest.mark.parametrize(
    "schedule",
    [
        lambda step: (True, step / 12) if step in (0, 3, 6) else (False, 0.0),
        lambda step: (step % 3 == 0 and step <= 6, step / 12 if step in (3, 6) else 0.0),
    ],
)
def test_where_no_prune_is_due_the_sparsity_may_be_0(schedule):
    assert final_sparsity(schedule) == 0.5
    net, model = opened()
    x, y = data(model)
    fit(model, x, y, PackNetCallback(schedule=schedule), epochs=3)  # 9 steps
    assert net.capacity().free == pytest.approx(0.5)


def test_a_schedule_that_is_cut_short_is_noticed_though_it_is_0_where_nothing_is_due():
    _, model = opened()
    x, y = data(model)
    schedule = lambda step: (True, step / 18) if step in (0, 3, 9) else (False, 0.0)  # noqa: E731
    with pytest.warns(UserWarning, match="reached its sparsity of 0.5, so the task is left open"):
        fit(model, x, y, PackNetCallback(schedule=schedule), epochs=2)  # 6 steps


def test_a_schedule_that_fails_after_its_end_is_told_what_is_asked():
    sparsities = [0.0, 0.25, 0.5]
    with pytest.raises(ValueError) as error:
        final_sparsity(lambda step: (True, sparsities[step]))
    assert str(error.value) == (
        "A schedule is asked for step 2147483647 too, for the sparsity at which it ends, and this "
        "one raised IndexError: list index out of range. Return (False, its last sparsity) for all "
        "steps after its end."
    )
