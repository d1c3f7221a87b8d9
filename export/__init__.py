"""ONNX export of packs: one graph per task, its masked weights baked in."""

from packnet_tf.export.onnx_export import export_all, export_onnx

__all__ = ["export_all", "export_onnx"]
