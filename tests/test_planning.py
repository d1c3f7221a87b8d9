"""How the capacity of a trunk divides among tasks."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import packnet_tf
from helpers.pack_helpers import conv_trunk, run_python
from packnet_tf.planning import (
    Share,
    equal_shares,
    plan,
    plan_table,
    rate_for_share,
    ratios_for_shapes,
    too_little,
)


def test_equal_shares_are_worked_out_by_hand():
    assert packnet_tf.equal_shares(1) == [0.0]
    assert packnet_tf.equal_shares(3) == [2 / 3, 1 / 2, 0.0]
    assert packnet_tf.equal_shares(4) == [3 / 4, 2 / 3, 1 / 2, 0.0]


@given(st.integers(1, 255))
def test_equal_shares_are_equal(tasks):
    shares = plan(packnet_tf.equal_shares(tasks))
    assert [share.owned for share in shares] == pytest.approx([1 / tasks] * tasks)
    assert shares[-1].free == 0.0


@pytest.mark.parametrize("tasks", [0, -1, 2.5, True, "3"])
def test_equal_shares_of_no_number_of_tasks_are_refused(tasks):
    with pytest.raises(ValueError) as error:
        packnet_tf.equal_shares(tasks)
    assert str(error.value) == (
        f"num_tasks is how many tasks the trunk will hold; got {tasks!r}. Write equal_shares(3) "
        "for three."
    )


def test_a_plan_is_worked_out_by_hand():
    assert plan([0.5, 0.75, 0.0]) == [
        Share(0.5, claimed=1.0, owned=0.5, seen=0.5, free=0.5),
        Share(0.75, claimed=0.5, owned=0.125, seen=0.625, free=0.375),
        Share(0.0, claimed=0.375, owned=0.375, seen=1.0, free=0.0),
    ]
    assert plan([0.5], free=0.25) == [Share(0.5, claimed=0.25, owned=0.125, seen=0.875, free=0.125)]
    with pytest.raises(ValueError, match="prune_ratio is the fraction"):
        plan([0.5, 1.5])


@pytest.mark.parametrize(
    ("seen_before", "seen"), [(None, [0.875, 1.0]), (0.5, [0.625, 0.625]), (0.0, [0.125, 0.125])]
)
def test_a_task_sees_what_it_owns_and_the_earlier_tasks_that_it_reuses(seen_before, seen):
    shares = plan([0.5, 0.0], free=0.25, seen_before=seen_before)
    assert [share.seen for share in shares] == seen
    assert [share.owned for share in shares] == [0.125, 0.125]


def test_a_plan_prints_as_a_table():
    assert plan_table(plan([0.5, 0.0]), first=3).splitlines() == [
        "task  prune_ratio  claims   owns    sees  left free",
        "---------------------------------------------------",
        "3             0.5  100.0%  50.0%   50.0%      50.0%",
        "4               0   50.0%  50.0%  100.0%       0.0%",
    ]


def test_a_task_that_trains_less_learns_at_a_higher_rate_up_to_twice_that():
    assert rate_for_share(0.003, 1.0) == 0.003
    assert rate_for_share(0.003, 0.75) == 0.004
    assert rate_for_share(0.003, 0.5) == rate_for_share(0.003, 0.0) == 0.006
    with pytest.raises(ValueError) as error:
        rate_for_share(0.003, 25)
    assert str(error.value) == (
        "share is the fraction of all packed weights that the task trains, a number from 0 to 1; "
        "got 25. Write share=0.75 for three quarters."
    )


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_ratios_by_layer_release_the_share_of_the_whole(ratio, power):
    shapes = [(3, 3, 3, 8), (3, 3, 8, 1), (1, 1, 8, 64), (3, 3, 64, 64), (64, 10)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    ratios = ratios_for_shapes(shapes, ratio, power)
    assert all(0.0 <= r <= 1.0 for r in ratios)
    released = sum(r * size for r, size in zip(ratios, sizes, strict=True))
    assert released == pytest.approx(ratio * sum(sizes))
    if power == 0.0:
        assert ratios == pytest.approx([ratio] * 5)
    elif 0.0 < ratio < 1.0:
        assert ratios[1] < ratios[3]  # the smallest layer keeps more than the largest


def test_a_pack_is_pruned_by_ratios_of_its_layers():
    net = packnet_tf.PackNet(conv_trunk())
    ratios = packnet_tf.erk_ratios(net, 0.5)
    assert list(ratios) == list(net.capacity())
    net.add_task("one", keras.layers.Dense(3))
    released = net.prune(ratios)
    for path, entry in net.capacity().items():
        assert released[path] == round(ratios[path] * entry["total"])
    with pytest.raises(ValueError, match="'fc' is missing"):
        net.prune({path: 0.5 for path in ratios if path != "fc"})
    with pytest.raises(ValueError, match="'other' is no packed weight"):
        net.prune({**ratios, "other": 0.5})


def test_tasks_that_get_too_little_are_said():
    assert too_little(plan([0.5, 0.0])) == []
    (sentence,) = too_little(plan([0.9, 0.0]))
    assert sentence.startswith("Task 1 will see 10.0% of the packed weights")
    assert "see more earlier tasks" not in sentence
    alone = too_little(plan([0.5, 0.0], free=0.5, seen_before=0.0), first=2)
    assert [text.partition(":")[0] for text in alone] == [
        "Task 2 will see 25.0% of the packed weights",
        "Task 3 will see 25.0% of the packed weights",
    ]
    assert all("let it see more earlier tasks (--reuse" in text for text in alone)
    ten = too_little(plan(equal_shares(10)))
    assert [text.split(" will")[0] for text in ten] == ["Task 1", "Task 2", "Task 3"]
    assert "beyond its head" in too_little(plan([0.5, 0.99, 0.0], free=0.3), first=2)[0]


def test_modules_of_functions_are_there_once_the_package_is_imported():
    done = run_python(
        "import packnet_tf; packnet_tf.planning.rate_for_share; packnet_tf.metrics.gaps; "
        "assert {'planning', 'metrics', 'PackNet'} <= set(dir(packnet_tf))"
    )
    assert done.returncode == 0, done.stderr
