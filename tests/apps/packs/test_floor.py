"""The linear head that a task becomes if its training ends below it."""

import numpy as np

from packnet_tf.apps.packs.floor import is_below


def test_as_many_images_as_the_linear_head_are_not_below_it():
    for right in range(1, 200):
        assert not is_below(float(np.float32(right / 200)), right / 200)
        assert is_below(float(np.float32((right - 1) / 200)), right / 200)
