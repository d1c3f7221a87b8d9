"""Every test starts from the same random numbers, in float32, with nothing left of the last one."""

import gc
import os
import signal
import time

# TensorFlow looks at the processor to decide whether oneDNN computes, and without it CPUs have no
# channels_first. Answers differ in their last digits.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# XLA optimizes a step for longer than a test runs it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
# There are two workers, and arrays are small: threads of one wait for those of the other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import pytest
import tensorflow as tf

from helpers import pack_helpers
from helpers.cases import slow

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so all processes that
# they start, some of which are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tracing makes objects by the million that stay; a tenth of all time went into looking at them.
gc.set_threshold(20_000, 20, 20)

# Each of the hundred thousand calls into TensorFlow is wrapped for shorter tracebacks; an eighth of
# all time went into that.
tf.debugging.disable_traceback_filtering()


def pytest_runtest_setup(item):
    until = float(os.environ.get("PACKNET_TESTS_UNTIL", "inf"))
    if time.time() > until:
        pytest.skip("not run: the time that .ci/run has for tests is over")


@pytest.fixture(autouse=True)
def same_start():
    keras.utils.set_random_seed(7)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(scope="module", autouse=True)
def no_garbage_of_other_modules():
    """TensorFlow keeps every graph that was ever traced, millions of objects by the end.

    Without this, each full garbage collection looks at them all, and at all that was imported.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["conv", "nested", *slow("conv1d", "conv3d", "mlp")])
def trunk(request):
    """Every kind of trunk in turn."""
    return pack_helpers.TRUNKS[request.param]()
