"""The retraining of `PackNetCallback`: its learning rate and optimizer; what others may read."""

import keras
import numpy as np
import pytest
from keras import optimizers

import packnet_tf
from helpers.pack_helpers import compiled, fit, kernels, logits, mlp_trunk, opened, packed, values

pytestmark = pytest.mark.any_backend

Callback = packnet_tf.PackNetCallback


@pytest.fixture
def net():
    return packnet_tf.PackNet(mlp_trunk())


@pytest.mark.parametrize("rate", [0.001, None])
def test_retraining_has_its_own_learning_rate(net, rate):
    model, x, y = opened(net, optimizers.SGD(0.25))
    rates = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    callback = Callback(0.5, prune_epoch=1, retrain_learning_rate=rate)
    fit(model, x, y, callback, watch, epochs=2, batch_size=24)
    assert rates == [0.25, float(np.float32(rate or 0.25))]


def test_retraining_at_learning_rate_0_leaves_the_survivors_as_the_prune_did(net):
    model, x, y = opened(net, optimizers.Adam(0.1, weight_decay=0.1))
    before = {}
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: before.update(kernels(net))
    )
    fit(model, x, y, watch, Callback(0.5, prune_epoch=1, retrain_learning_rate=0.0))
    for path, weight in net.state.weights.items():
        owner, value = values([weight.owner, weight.packed])
        assert np.array_equal(value[owner == 1], before[path][owner == 1])


def rate_of(model):
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


@pytest.mark.parametrize(
    "packing",
    [
        {"prune_ratio": 0.5, "prune_epoch": 1},
        {"schedule": lambda step: (step >= 3, 0.5)},
    ],
    ids=["at once", "gradually"],
)
def test_the_rate_of_the_retraining_holds_for_a_model_compiled_anew_within_it(net, packing):
    model, x, y = opened(net, optimizers.SGD(0.25))
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: 1 / (2 - epoch))
    callback = Callback(**packing, retrain_learning_rate=0.125)
    with pytest.raises(ZeroDivisionError):
        fit(model, x, y, callback, stop, epochs=4)
    assert rate_of(model) == 0.125
    compiled(model, optimizers.SGD(0.25))
    rates = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: rates.append(rate_of(model)))
    model.fit(x, y, epochs=4, initial_epoch=2, verbose=0, callbacks=[callback, watch])
    assert rates == [0.125, 0.125]
    assert net.tasks == ("one",)


def test_a_stop_while_the_pruned_network_is_evaluated_leaves_the_optimizer_reset(net, monkeypatch):
    model, x, y = opened(net, optimizers.SGD(0.25, momentum=0.5))
    callback = Callback(0.5, prune_epoch=1, retrain_learning_rate=0.125, validation_data=(x, y))
    counted = iter([{"loss": 1.0}])
    monkeypatch.setattr(Callback, "_evaluate", lambda self: next(counted))
    with pytest.raises(StopIteration):
        fit(model, x, y, callback, epochs=3)
    assert rate_of(model) == 0.125
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


class ReadsThePack(keras.callbacks.Callback):
    """Reads the whole pack after the second step of a `fit`."""

    def __init__(self, net, path):
        super().__init__()
        self.net, self.path = net, path

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            if keras.backend.backend() == "jax":  # as docs/guides/training.md says
                self.model.jax_state_sync()
            self.net.save(self.path)
            self.kernels = kernels(self.net)
            self.free = self.net.capacity().free
            self.earlier = logits(self.net.task_model("zero"), self.x)


def test_a_pack_can_be_read_after_any_step(tmp_path):
    net = packed(mlp_trunk(), zero=0.5)
    model, x, y = opened(net)
    earlier = logits(net.task_model("zero"), x)
    reader = ReadsThePack(net, tmp_path / "pack.keras")
    reader.x = x
    model.fit(x, y, batch_size=len(x) // 4, epochs=2, callbacks=[reader], verbose=0)
    saved = packnet_tf.load(tmp_path / "pack.keras")
    for path, value in kernels(saved).items():
        assert np.array_equal(value, reader.kernels[path]), path
    assert np.array_equal(reader.earlier, earlier)
    assert net.open_model is model
    net.prune(0.5)
    net.commit()
    assert np.array_equal(logits(net.task_model("zero"), x), earlier)
