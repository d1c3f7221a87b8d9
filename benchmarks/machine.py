"""What a bench was measured on."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform

PACKAGES = ("packnet_tf", "keras", "tensorflow", "onnx", "onnxruntime", "numpy")


def machine() -> dict:
    """What was measured on: `cpu`, `cores` (of this process), `system` and `versions`."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "system": platform.platform(terse=True),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        for package in (name, f"{name}-gpu"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(package)
    return found
