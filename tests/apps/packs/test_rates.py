"""Rates and pruning as the commands set them."""

import keras
import pytest
from keras import layers

import packnet_tf
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.plan import Plan
from packnet_tf.training.schedules import ask


def new_net(**policy):
    trunk = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.BatchNormalization()])
    return packnet_tf.PackNet(trunk, **policy)


def net_with_half_left(**policy):
    net = new_net(**policy)
    net.add_task("first", layers.Dense(2))
    net.prune(0.5)
    net.commit()
    return net


def test_the_next_task_of_a_pack_learns_at_rates_for_what_it_trains():
    net = new_net()
    assert rates.factors(net, "sgd", 0.0, gradual=True) == (1.0, 1.0)
    assert rates.factors(net, "sgd", 0.2, gradual=True) == (1.25, 1.25)
    assert rates.factors(net, "sgd", 0.2, gradual=False) == (1.0, 1.25)
    assert rates.factors(net, "sgd", 0.0, True, claim_ratio=0.8) == (1.25, 1.25)
    net = net_with_half_left()
    assert rates.factors(net, "sgd", 0.0, gradual=True) == (2.0, 2.0)
    assert rates.factors(net, "sgd", 0.75, gradual=True) == (2.0, 2.0)
    assert rates.factors(net, "sgd", 0.75, gradual=True, scale_rate=False) == (1.0, 1.0)
    assert rates.factors(net, "adam", 0.5, gradual=True) == (1.0, 1.0)
    net.state = net.state.with_committed(net.tasks[0], adopted=True)
    assert rates.factors(net, "adam", 0.5, gradual=True) == (2.0, 2.0)
    assert rates.factors(net, "adam", 0.5, gradual=True, scale_rate=False) == (1.0, 1.0)
    auto = packnet_tf.Auto(max_drop=0.01)  # has yet to find out what it keeps
    assert rates.factors(new_net(), "sgd", auto, gradual=True) == (1.0, 1.0)
    assert rates.pruning(auto, 8, 10, gradual=True) is auto
    shared = net_with_half_left(norms="shared")
    assert rates.factors(shared, "sgd", 0.5, gradual=True) == (1.0, 1.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_task_with_an_overlay_has_rates_of_its_own(optimizer):
    net = net_with_half_left()
    found = rates.factors(net, optimizer, 0.0, gradual=True, scale_rate=False, owns=False)
    assert found == rates.OVERLAY_FACTORS[optimizer]


@pytest.mark.parametrize(
    ("epochs", "spans"), [(15, (3, 12)), (9, (2, 7)), (2, (1, 1)), (1, (0, 1))]
)
def test_an_overlay_is_chosen_after_a_fifth_of_the_epochs(epochs, spans):
    plan = Plan(pack="a.keras", task="a", data="a", epochs=epochs, learning_rate=0.3)
    fields = rates.of_overlay(plan)
    assert (fields["epochs"], fields["retrain_epochs"]) == spans
    last = fields["retrain_learning_rate"](spans[1] - 1)
    assert last == pytest.approx(0.03 if spans[1] > 1 else 0.3)


def test_rates_fall_to_a_tenth_along_a_cosine():
    found = [rates.cosine(epoch, 5, 1.0) for epoch in range(5)]
    assert found[0] == 1.0
    assert found[2] == pytest.approx(0.55)
    assert found[4] == pytest.approx(0.1)
    assert found == sorted(found, reverse=True)
    assert rates.cosine(0, 1, 1.0) == 1.0


def test_decay_is_a_function_of_the_epoch():
    assert [rates.decayed(1.0, 4, "none")(e) for e in range(4)] == [1.0] * 4
    steps = [rates.decayed(1.0, 4, "step", 2)(e) for e in range(5)]
    assert steps == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = [rates.decayed(1.0, 3)(e) for e in range(3)]
    assert cosine == pytest.approx([1.0, 0.55, 0.1])


def test_gradual_pruning_goes_from_an_eighth_of_the_training_to_three_quarters():
    schedule = rates.pruning(0.75, epochs=8, steps=10, gradual=True)
    assert not ask(schedule, 9)[0]
    assert ask(schedule, 10) == (True, 0.0)
    assert ask(schedule, 60)[1] == 0.75
    sparsities = [ask(schedule, step)[1] for step in range(10, 61)]
    assert sparsities == sorted(sparsities)


@pytest.mark.parametrize(
    ("ratio", "epochs", "gradual"), [(0.75, 8, False), (0.0, 8, True), (0.5, 0, True)]
)
def test_where_there_is_nothing_to_spread_it_is_the_ratio(ratio, epochs, gradual):
    assert rates.pruning(ratio, epochs, 10, gradual) == ratio
