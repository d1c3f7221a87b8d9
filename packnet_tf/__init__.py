"""PackNet for Keras 3: many tasks in one network, nothing forgotten.

The public names are imported on first use, so that commands which need neither Keras nor
TensorFlow (`packnet predict`) start at once. The packed layers are registered with Keras when both
are imported, in either order: `keras.saving.load_model` then reads saved task models.
"""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packnet_tf.callback import PackNetCallback as PackNetCallback
    from packnet_tf.capacity import Capacity as Capacity
    from packnet_tf.layers import Packed as Packed
    from packnet_tf.net import PackNet as PackNet
    from packnet_tf.optimizers import reset_optimizer as reset_optimizer
    from packnet_tf.packable import register_packed as register_packed
    from packnet_tf.planning import equal_shares as equal_shares
    from packnet_tf.plotting import plot_capacity as plot_capacity
    from packnet_tf.pruning import magnitude as magnitude
    from packnet_tf.schedules import constant_sparsity as constant_sparsity
    from packnet_tf.schedules import polynomial_decay as polynomial_decay
    from packnet_tf.storage import load as load
    from packnet_tf.trainer.auto import Auto as Auto
    from packnet_tf.trainer.pack_trainer import PackTrainer as PackTrainer
    from packnet_tf.trainer.task import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "Auto": "trainer.auto",
    "Capacity": "capacity",
    "PackNet": "net",
    "PackNetCallback": "callback",
    "PackTrainer": "trainer.pack_trainer",
    "Packed": "layers",
    "Task": "trainer.task",
    "equal_shares": "planning",
    "constant_sparsity": "schedules",
    "load": "storage",
    "magnitude": "pruning",
    "plot_capacity": "plotting",
    "polynomial_decay": "schedules",
    "register_packed": "packable",
    "reset_optimizer": "optimizers",
}
_WITHOUT_KERAS = ("capacity", "planning", "plotting", "pruning", "schedules")
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'packnet_tf' has no attribute {name!r}")
    if _HOMES[name] not in _WITHOUT_KERAS:
        # First, so that what comes along with it (see below) meets no module that is half made.
        importlib.import_module("keras")
    value = getattr(importlib.import_module(f"packnet_tf.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _WhenKerasComes:
    """Import hook: registers the packed layers with Keras as soon as that is imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None:  # somebody may only be asking: nothing happens before it is executed
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                sys.meta_path.remove(self)
                importlib.import_module("packnet_tf.task_model")

            spec.loader.exec_module = execute_and_register
        return spec


if "keras" in sys.modules:
    importlib.import_module("packnet_tf.task_model")
else:
    sys.meta_path.insert(0, _WhenKerasComes())
