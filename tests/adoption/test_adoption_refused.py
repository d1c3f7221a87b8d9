"""What cannot be adopted is refused, and the pack is as it was."""

import re

import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import mlp_trunk, packed, same
from helpers.pretrained import Batches, adopt, committed, pretrained

any_backend = pytest.mark.any_backend


def refused(net, error_type, **kwargs):
    """The text of a refusal, after which the pack is as it was."""
    before, tasks = committed(net), net.tasks
    with pytest.raises(error_type) as error:
        adopt(net, **kwargs)
    assert same(committed(net), before)
    assert net.tasks == tasks
    assert net.open_model is None
    return str(error.value)


@any_backend
def test_a_trunk_is_adopted_before_any_other_task():
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    assert refused(net, RuntimeError) == (
        "Cannot adopt task 'imagenet': a pretrained trunk is adopted as the first task, and the "
        "pack has 'one', 'two'. Make a new pack, net = packnet_tf.PackNet(trunk), call "
        "net.adopt('imagenet', prune_ratio), then add the others."
    )


@any_backend
def test_a_trunk_is_not_adopted_while_a_task_is_open():
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    with pytest.raises(RuntimeError) as error:
        net.adopt("imagenet", 0.5)
    assert str(error.value) == (
        "Cannot add task 'imagenet': task 'one' is not committed yet (training). Finish it with "
        "net.prune(ratio) and net.commit(), or drop it with net.discard()."
    )
    assert net.open_model is model


@any_backend
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"prune_ratio": 1.5},
            "prune_ratio is the fraction of the task's claim that pruning releases, a number from "
            "0 to 1; got 1.5. Write prune_ratio=0.75 for three quarters.",
        ),
        *(
            (
                {"epochs": epochs},
                "epochs is how often the repair goes over the images, a whole number; got "
                f"{epochs!r}. Write epochs=5, or epochs=0 to measure the damage and not repair it.",
            )
            for epochs in (-1, 1.5, True, None)
        ),
        *(
            (
                {"learning_rate": rate},
                "learning_rate is that of the repair's first epoch, a number above 0; got "
                f"{rate!r}. Write learning_rate=0.0003.",
            )
            for rate in (0, -1, float("nan"), float("inf"), "fast")
        ),
        (
            {"head": layers.Dense(3)},
            "Cannot adopt task 'imagenet': its head is not built, so its weights would be random, "
            "and adopting trains no head. Give the head that the trunk was trained with, or leave "
            "it out: the task then answers with the trunk's features.",
        ),
        (
            {"head": "dense"},
            "Cannot add task 'imagenet': its head must be a Keras layer or model, for instance "
            "keras.layers.Dense(10); got 'dense'.",
        ),
        (
            {"classes": ["a", "b"]},
            "Cannot add task 'imagenet': 2 class names for 8 outputs. Give one name per output of "
            "the head.",
        ),
        *(
            (
                {"images": np.full((8, 12), value, "float32")},
                "Cannot match the trunk's features: on these images they are all the same, NaN or "
                "infinite. Give real images, with the pixel values that the trunk takes.",
            )
            for value in (0.0, np.nan)
        ),
    ],
    ids=lambda wrong: str(next(iter(wrong.items())))[:40] if isinstance(wrong, dict) else "",
)
def test_what_cannot_be_used_is_refused_and_changes_nothing(wrong, text):
    assert refused(packnet_tf.PackNet(mlp_trunk()), ValueError, **wrong) == text


@any_backend
def test_a_head_without_weights_need_not_be_built():
    net = packnet_tf.PackNet(mlp_trunk())
    net.adopt("imagenet", 0.5, head=layers.Softmax())
    assert net.tasks == ("imagenet",)


@any_backend
@pytest.mark.parametrize(("activation", "after"), [("linear", "nan"), ("sigmoid", None)])
def test_a_repair_that_makes_it_worse_is_refused_and_changes_nothing(activation, after):
    net = packnet_tf.PackNet(mlp_trunk(activation))
    text = refused(net, ValueError, prune_ratio=0.1, learning_rate=1e30)
    before = adopt(net, prune_ratio=0.1, epochs=0).error_pruned
    after = after or re.search(r" to ([0-9.e+]*)\. Give", text)[1]
    assert text == (
        "Cannot adopt task 'imagenet': the repair made the features worse, from a relative error "
        f"of {before:.4g} to {after}. Give a learning_rate below 1e+30, or leave the images out to "
        "prune without repair."
    )


@any_backend
@pytest.mark.parametrize("reads", [8, 16])  # in the repair, in what follows it
def test_a_repair_that_stops_half_way_changes_nothing(reads):
    class Unreadable(Batches):
        left = reads

        def __getitem__(self, place):
            self.left -= 1
            if self.left < 0:
                raise OSError("no such image")
            return super().__getitem__(place)

    trunk, _ = pretrained()
    net = packnet_tf.PackNet(trunk)
    assert "no such image" in refused(net, Exception, images=Unreadable(), epochs=2)
    assert adopt(net, images=None).name == "imagenet"
