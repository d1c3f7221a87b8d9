"""Ordinary Keras habits, around the verbs, that must not break a promise."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    SPARSE,
    break_task,
    claims,
    compiled,
    conv_trunk,
    data,
    fit,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    pack_task,
    packed,
    packed_layers,
    run_python,
    same,
)


@pytest.mark.parametrize("part", ["trunk", "layer"])
def test_freezing_the_trunk_in_one_task_does_not_freeze_it_in_the_next(part):
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    frozen = model.trunk if part == "trunk" else model.trunk.get_layer("first")
    frozen.trainable = False
    assert len(model.trainable_variables) < 6
    net.prune(0.5)
    net.commit()
    later = net.add_task("two", layers.Dense(3))
    names = [variable.name for variable in later.trainable_variables]
    assert names.count("kernel") == 3
    before = kernels(net)
    x, y = data(later)
    fit(compiled(later, keras.optimizers.SGD(0.5)), x, y, epochs=1)
    for path, kernel in kernels(net).items():
        assert not np.array_equal(before[path], kernel), path


@pytest.mark.parametrize("norms", ["shared", "per_task"])
def test_unfreezing_the_trunk_of_a_later_task_leaves_what_is_shared_frozen(norms):
    net = packnet_tf.PackNet(conv_trunk(), norms=norms)
    pack_task(net, "one")
    model = net.add_task("two", layers.Dense(3))
    expected = [variable.path for variable in model.trainable_variables]
    model.trunk.trainable = False
    model.trunk.trainable = True
    assert [variable.path for variable in model.trainable_variables] == expected
    shared = [layer.bias.numpy() for layer in packed_layers(model) if layer.use_bias]
    moving = model.trunk.get_layer("norm1").moving_mean.numpy()
    model.trunk.trainable = True
    x, y = data(model)
    fit(compiled(model, keras.optimizers.SGD(0.5)), x, y, epochs=1)
    after = [layer.bias.numpy() for layer in packed_layers(model) if layer.use_bias]
    assert all(map(np.array_equal, shared, after))
    same = np.array_equal(moving, model.trunk.get_layer("norm1").moving_mean.numpy())
    assert same == (norms == "shared")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_step_traced_after_unfreezing_leaves_shared_statistics_alone(wrapped):
    import tensorflow as tf

    net = packnet_tf.PackNet(conv_trunk(), norms="shared")
    pack_task(net, "one")
    model = net.add_task("two", layers.Dense(3))
    x, y = data(model.trunk)
    model.trunk.trainable = False  # to train the head first, then all
    model.trunk.trainable = True
    outer = keras.Sequential([keras.Input(x.shape[1:]), model]) if wrapped else model
    optimizer = keras.optimizers.SGD(0.1)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = SPARSE(y, outer(x, training=True))
        trained = outer.trainable_variables
        optimizer.apply(tape.gradient(loss, trained), trained)

    norm = model.trunk.get_layer("norm1")
    before = [variable.numpy() for variable in norm.weights]
    biases = [layer.bias.numpy() for layer in packed_layers(model) if layer.use_bias]
    for _ in range(3):
        step()
    assert same([variable.numpy() for variable in norm.weights], before)
    assert same([layer.bias.numpy() for layer in packed_layers(model) if layer.use_bias], biases)


def test_weights_of_another_pack_cannot_be_set():
    first, second = (packed(mlp_trunk(), one=0.5) for _ in range(2))
    ours = first.add_task("two", layers.Dense(3))
    theirs = second.add_task("two", layers.Dense(3))
    x, _ = data(ours)
    before = logits(first.task_model("one"), x)
    with pytest.raises(ValueError, match="belong to another pack"):
        ours.set_weights(theirs.get_weights())
    with pytest.raises(ValueError, match="belong to another pack"):
        ours.trunk.set_weights(theirs.trunk.get_weights())
    assert np.array_equal(logits(first.task_model("one"), x), before)
    ours.trunk.set_weights(ours.trunk.get_weights())
    ours.set_weights(ours.get_weights())


def test_a_fit_interrupted_after_the_prune_goes_on_in_the_same_process(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)))
    x, y = data(model)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2 and not hasattr(self, "done"):
                self.done = True
                raise KeyboardInterrupt

    callbacks = [
        packnet_tf.PackNetCallback(0.5, prune_epoch=1),
        keras.callbacks.BackupAndRestore(tmp_path, save_freq=2),
        Interrupt(),
    ]
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, y, *callbacks, epochs=3)
    fit(model, x, y, *callbacks, epochs=3)
    assert net.tasks == ("one",)
    assert all(e["owned"]["one"] == round(e["total"] / 2) for e in net.capacity().values())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["kernel", "bias", "head"])
def test_a_diverged_task_is_not_committed(where, value):
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3, name="top"))
    (layer, *_) = packed_layers(model)
    variable = {
        "kernel": layer.packed_weights["kernel"].trainable,
        "bias": layer.bias,
        "head": model.head.kernel,
    }[where]
    broken = variable.numpy()
    broken.reshape(-1)[0] = value
    variable.assign(broken)
    with pytest.raises(ValueError, match="Cannot commit task 'one': training diverged, weights"):
        net.commit()
    assert net.tasks == ()


def test_sample_weights_and_lists_are_taken_as_validation_data():
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    model.compile("sgd", SPARSE, weighted_metrics=["accuracy"], jit_compile=False)
    x, y = data(model)
    weights = np.zeros(len(y), "float32")
    weights[0] = 1
    packing = packnet_tf.PackNetCallback(0.5, 0, validation_data=(x, y, weights))
    fit(model, x, y, packing, epochs=1)
    assert packing.around_prune["before"]["accuracy"] in (0.0, 1.0)


def test_a_schedule_and_a_retrain_learning_rate_are_refused_before_training():
    net = packnet_tf.PackNet(mlp_trunk())
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model = compiled(net.add_task("one", layers.Dense(3)), keras.optimizers.SGD(schedule))
    x, y = data(model)
    with pytest.raises(ValueError, match="retrain_learning_rate cannot be set: the optimizer"):
        fit(model, x, y, packnet_tf.PackNetCallback(0.5, 1, retrain_learning_rate=0.01))
    fit(model, x, y, packnet_tf.PackNetCallback(0.5, 1))
    assert net.tasks == ("one",)


def test_several_optimizers_have_no_retrain_learning_rate():
    from keras.src.optimizers.multi_optimizer import OptimizerMap

    parts = OptimizerMap(keras.optimizers.Adam(0.01))
    parts["head/.*"] = keras.optimizers.SGD(0.01, momentum=0.9)
    both = keras.optimizers.MultiOptimizer(parts)
    net = packnet_tf.PackNet(mlp_trunk())
    x, y = data(mlp_trunk())
    trainer = packnet_tf.PackTrainer(net, lambda rate: both, verbose=False)
    with pytest.raises(ValueError, match="PackTrainer sets one learning rate for every epoch"):
        trainer.fit(packnet_tf.Task("one", layers.Dense(3), (x, y)))
    assert net.open_model is None
    model = compiled(net.add_task("one", layers.Dense(3, name="head")), both)
    with pytest.raises(ValueError, match="cannot be set: a MultiOptimizer has several rates"):
        fit(model, x, y, packnet_tf.PackNetCallback(0.5, 1, retrain_learning_rate=0.01))
    fit(model, x, y, packnet_tf.PackNetCallback(0.5, 1))
    assert net.tasks == ("one",)


def test_an_optimizer_of_another_task_is_refused_before_training():
    net = packnet_tf.PackNet(mlp_trunk())
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model = compiled(net.add_task("one", layers.Dense(3)), optimizer)
    x, y = data(model)
    fit(model, x, y, packnet_tf.PackNetCallback(0.5, 0), epochs=1)
    later = net.add_task("two", layers.Dense(3))
    text = r"built for another model and does not know '.*'\. Make a new optimizer for every task"
    with pytest.raises(ValueError, match=text):
        fit(compiled(later, optimizer), x, y, epochs=1)
    fit(compiled(later, keras.optimizers.SGD(0.1)), x, y, epochs=1)
    fit(compiled(later, later.optimizer), x, y, epochs=1)


def test_class_names_of_any_kind_are_kept_as_text(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    net.notes["year"] = 2024
    net.add_task("one", layers.Dense(3), classes=np.array([0, 1, 2]))
    net.commit()
    net.save(tmp_path / "pack.keras")
    again = packnet_tf.load(tmp_path / "pack.keras")
    assert again.classes("one") == ["0", "1", "2"]
    assert again.notes == {"year": "2024"}


@pytest.mark.slow
def test_keras_reads_a_saved_task_model_once_both_are_imported(tmp_path):
    model = pack_task(packnet_tf.PackNet(mlp_trunk()), "one")
    model.save(tmp_path / "one.keras")
    done = run_python(
        """
        import sys
        import keras
        import packnet_tf
        print(type(keras.saving.load_model(sys.argv[1])).__name__)
        """,
        tmp_path / "one.keras",
    )
    assert done.stdout.strip() == "TaskModel", done.stderr


@pytest.mark.slow
def test_every_module_may_be_the_first_that_is_imported():
    package = pathlib.Path(packnet_tf.__file__).parent
    files = [file.relative_to(package.parent).with_suffix("") for file in package.rglob("*.py")]
    done = run_python(
        """
        import importlib, os, sys
        import tensorflow  # takes most of the time, so once for all
        for module in sys.argv[1:]:
            child = os.fork()
            if not child:
                importlib.import_module(module)
                print(module, "imported")
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(child, 0)
        """,
        *sorted(".".join(file.parts).removesuffix(".__init__") for file in files),
    )
    assert len(files) > 40
    assert done.stdout.count(" imported") == len(files), done.stderr


def test_heads_that_cannot_be_used_are_refused_with_the_reason():
    class Own(keras.Model):
        def call(self, x):
            return x

    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError, match=r"its head is a subclassed model \(Own\), which cannot"):
        net.add_task("one", Own())
    with pytest.raises(ValueError, match="it is a Lambda around a Python function, which no file"):
        net.add_task("one", layers.Lambda(lambda x: x))
    wrong = keras.Sequential([keras.Input((99,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"its head does not fit the trunk, whose outputs have"):
        net.add_task("one", wrong)
    assert net.open_model is None


def test_unregistered_layers_are_warned_of_before_training():
    class Scale(layers.Layer):
        def call(self, x):
            return 2 * x

    trunk = keras.Sequential([keras.Input((4,)), Scale(), layers.Dense(2)])
    with pytest.warns(UserWarning, match="a Scale, which is not registered with Keras: a pack"):
        packnet_tf.PackNet(trunk)


def test_a_task_that_answers_nan_is_not_exported(tmp_path):
    from packnet_tf.export import export_onnx

    net = packed(mlp_trunk(), one=0.5)
    break_task(net, 0, np.nan)
    with pytest.raises(ValueError, match="answers NaN or infinite numbers in Keras"):
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_jolted_tasks_differ():
    # The helpers above prove nothing unless jolting changes what a model answers.
    model = packnet_tf.PackNet(mlp_trunk()).add_task("one", layers.Dense(3))
    x, _ = data(model)
    before = logits(model, x)
    jolt(model)
    assert not np.array_equal(before, logits(model, x))


def test_a_layer_frozen_when_its_task_ended_can_be_frozen_in_the_next():
    net = packnet_tf.PackNet(mlp_trunk())
    for name in ("one", "two"):
        model = net.add_task(name, layers.Dense(3))
        assert sum(variable.name == "kernel" for variable in model.trainable_variables) == 3
        model.trunk.trainable = False
        assert [v.path.rpartition("/")[2] for v in model.trainable_variables] == ["kernel", "bias"]
        net.prune(0.5)
        net.commit()


def test_views_list_their_variables_as_keras_does():
    trunk = mlp_trunk()
    model = packnet_tf.PackNet(trunk).add_task("one", layers.Dense(3))
    names = [variable.name for variable in model.trunk.trainable_variables]
    assert names == [variable.name for variable in trunk.trainable_variables]
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x, _ = data(trunk)
    assert np.array_equal(logits(clone, x), logits(model, x))


def test_a_loaded_task_model_knows_its_trunk_and_head(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    net.task_model("one").save(tmp_path / "one.keras")
    loaded = keras.saving.load_model(tmp_path / "one.keras")
    assert (loaded.trunk.name, loaded.head.name) == ("mlp", "logits")


def test_weights_are_not_loaded_into_the_trunk_of_a_committed_task(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    trunk = net.task_model("one").trunk
    trunk.save_weights(tmp_path / "one.weights.h5")
    net.add_task("two", layers.Dense(3))
    before = claims(net)
    with pytest.raises((RuntimeError, ValueError), match="is committed or discarded"):
        trunk.load_weights(tmp_path / "one.weights.h5")
    assert same(list(claims(net).values()), list(before.values()))
