"""PackNet for Keras 3: many tasks in one network, nothing forgotten.

Public names are imported on first use, so that commands which need neither Keras nor TensorFlow
(`packnet predict`) start fast. If Keras was imported earlier, the packed layers are registered
immediately, so that `keras.saving.load_model` can read saved task models.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packnet_tf import metrics as metrics
    from packnet_tf import planning as planning
    from packnet_tf.backend.optimizers import reset_optimizer as reset_optimizer
    from packnet_tf.net import PackNet as PackNet
    from packnet_tf.net import load as load
    from packnet_tf.normalization.statistics import update_statistics as update_statistics
    from packnet_tf.packing.layers import Packed as Packed
    from packnet_tf.packing.pruning import magnitude as magnitude
    from packnet_tf.packing.registry import register_packed as register_packed
    from packnet_tf.planning import equal_shares as equal_shares
    from packnet_tf.planning import erk_ratios as erk_ratios
    from packnet_tf.reporting.capacity import Capacity as Capacity
    from packnet_tf.reporting.history_plot import plot_history as plot_history
    from packnet_tf.reporting.plotting import plot_capacity as plot_capacity
    from packnet_tf.reporting.quality import shortfalls as shortfalls
    from packnet_tf.routing.router import TaskRouter as TaskRouter
    from packnet_tf.trainer.pack_trainer import PackTrainer as PackTrainer
    from packnet_tf.trainer.task import PendingTask as PendingTask
    from packnet_tf.trainer.task import Task as Task
    from packnet_tf.training.auto import Auto as Auto
    from packnet_tf.training.callback import PackNetCallback as PackNetCallback
    from packnet_tf.training.heads import linear_head as linear_head
    from packnet_tf.training.schedules import constant_sparsity as constant_sparsity
    from packnet_tf.training.schedules import polynomial_decay as polynomial_decay

__version__ = "0.2.0"

_HOMES = {
    "Auto": "packnet_tf.training.auto",
    "Capacity": "packnet_tf.reporting.capacity",
    "PackNet": "packnet_tf.net",
    "PackNetCallback": "packnet_tf.training.callback",
    "PendingTask": "packnet_tf.trainer.task",
    "PackTrainer": "packnet_tf.trainer.pack_trainer",
    "Packed": "packnet_tf.packing.layers",
    "Task": "packnet_tf.trainer.task",
    "TaskRouter": "packnet_tf.routing.router",
    "equal_shares": "packnet_tf.planning",
    "erk_ratios": "packnet_tf.planning",
    "constant_sparsity": "packnet_tf.training.schedules",
    "linear_head": "packnet_tf.training.heads",
    "load": "packnet_tf.net",
    "magnitude": "packnet_tf.packing.pruning",
    "plot_capacity": "packnet_tf.reporting.plotting",
    "plot_history": "packnet_tf.reporting.history_plot",
    "polynomial_decay": "packnet_tf.training.schedules",
    "register_packed": "packnet_tf.packing.registry",
    "reset_optimizer": "packnet_tf.backend.optimizers",
    "shortfalls": "packnet_tf.reporting.quality",
    "update_statistics": "packnet_tf.normalization.statistics",
}
_MODULES = ("metrics", "planning")  # public modules of functions
__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"packnet_tf.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'packnet_tf' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if "keras" in sys.modules:
    importlib.import_module("packnet_tf.tasks.task_model")  # registers the classes in files
