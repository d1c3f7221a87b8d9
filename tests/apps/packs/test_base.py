"""What a pack starts from by default follows from the trunk."""

import pytest

from packnet_tf.apps.packs.base import default_restart


@pytest.mark.parametrize(
    ("trained", "has_base", "expected"),
    [(True, True, "zero"), (True, False, "trunk"), (False, False, "zero"), (False, True, "zero")],
)
def test_freed_weights_restart_from_values_that_serve_a_task_or_from_zero(
    trained, has_base, expected
):
    assert default_restart(trained, has_base) == expected
