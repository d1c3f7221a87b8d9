"""ONNX export of packs: one graph per task, with the task's masked weights baked in.

The public names are imported on first use, as in `packnet_tf`, so that a program without Keras can
import `runtime`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packnet_tf.export.api import export_all as export_all
    from packnet_tf.export.api import export_onnx as export_onnx
    from packnet_tf.export.bundle.export_bundle import export_bundle as export_bundle
    from packnet_tf.export.check_folder import verify as verify
    from packnet_tf.export.multitask.export_multitask import export_multitask as export_multitask
    from packnet_tf.export.multitask.export_router import export_router as export_router

_MODULES = {
    "export_all": "packnet_tf.export.api",
    "export_bundle": "packnet_tf.export.bundle.export_bundle",
    "export_multitask": "packnet_tf.export.multitask.export_multitask",
    "export_onnx": "packnet_tf.export.api",
    "export_router": "packnet_tf.export.multitask.export_router",
    "verify": "packnet_tf.export.check_folder",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'packnet_tf.export' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
