"""onnxruntime sessions. Devices have no Keras and no TensorFlow: import neither."""

import contextlib
import functools
import importlib.metadata
import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.text import quoted
from packnet_tf.backend.types import AnyPath

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LENGTHS = (32, 64, 128, 256, 512, 1024, 16, 8)  # sizes to try for unknown dimensions, in this order
CPU, SUFFIX = "CPUExecutionProvider", "ExecutionProvider"
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


class ProviderError(ValueError):
    """Raised for an execution provider that onnxruntime does not have, or cannot start."""


def provider_name(name: str) -> str:
    """Returns onnxruntime's name of an execution provider.

    Args:
        name: "cpu", "cuda", ..., or onnxruntime's own name; upper and lower case are the same.

    Raises:
        ProviderError: the installed onnxruntime does not have it; the message lists those it has.

    Example:
        >>> provider_name("cpu")
        'CPUExecutionProvider'
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    for full in available:
        if name.lower() in (full.lower(), full.removesuffix(SUFFIX).lower()):
            return full
    known = ", ".join(full.removesuffix(SUFFIX).lower() for full in available)
    raise ProviderError(
        f"onnxruntime {onnxruntime.__version__} has no provider '{name}' here; it has {known}. "
        "Write one of these."
    )


def optimize(path: AnyPath, target: AnyPath) -> None:
    """Optimizes a model, and writes it in ONNX Runtime's own format (`.ort`).

    Only optimizations that are valid on every CPU are applied.

    Args:
        path: a `.onnx` file.
        target: the `.ort` file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = os.fspath(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(os.fspath(path), options, providers=[CPU])


def class_names(facts: Mapping[str, str], path: AnyPath) -> list[str] | None:
    """Returns the names of classes in the metadata of a file; None if it has none.

    Args:
        facts: the metadata.
        path: the file, for the message.

    Raises:
        ValueError: they are damaged.
    """
    if "classes" not in facts:
        return None
    return _parsed(facts["classes"], are_names, "its classes are no list of names", path)


def are_names(found: object) -> bool:
    """Returns whether a value of metadata is a list of texts."""
    return isinstance(found, list) and all(isinstance(name, str) for name in found)


def routed_numbers(facts: Mapping[str, str], path: AnyPath) -> dict[str, int] | None:
    """Returns the numbers of a router's tasks, by name, in the order of its scores.

    Args:
        facts: the metadata.
        path: the file, for the message.

    Returns:
        The numbers; None if the file is no router.

    Raises:
        ValueError: they are damaged.
    """
    if "router" not in facts:
        return None

    def are_numbers(found: object) -> bool:
        return isinstance(found, dict) and all(type(number) is int for number in found.values())

    return _parsed(facts["router"], are_numbers, "its tasks have no numbers", path)


def _parsed(text: str, holds: Callable[[object], bool], otherwise: str, path: AnyPath) -> Any:
    """Returns the JSON of a file's metadata; `otherwise` says what is wrong if it is another."""
    try:
        found = parse_json(text)
        if not holds(found):
            raise ValueError(f"they are {quoted(found)}")
    except ValueError as error:
        raise ValueError(
            f"'{path}' has damaged metadata: {otherwise} ({quoted(error)}). Write it again with "
            "packnet export."
        ) from error
    return found


def session(path: AnyPath, provider: str = "cpu", threads: int = 0) -> "InferenceSession":
    """Opens a model file in onnxruntime.

    Args:
        path: a `.onnx` or `.ort` file.
        provider: the execution provider, see `provider_name`. The CPU runs the operators that it
            lacks.
        threads: number of threads that compute one operator; 0 for onnxruntime's default.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ProviderError: the provider is not available.
        ValueError: names or metadata in the file are no text.
    """
    import onnxruntime

    _warn_of_two_packages()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads
    name = provider_name(provider)
    try:  # onnxruntime decodes text when asked for it: here, and not wherever it is needed
        opened = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=list(dict.fromkeys([name, CPU]))
        )
        _ = opened.get_modelmeta().custom_metadata_map
        _ = [(value.name, value.shape) for value in (*opened.get_inputs(), *opened.get_outputs())]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' has names or metadata that are no text: it is damaged. Write it again with "
            "packnet export."
        ) from error
    # onnxruntime may list a provider whose libraries or hardware are missing, and use the CPU.
    if name not in opened.get_providers():
        raise ProviderError(
            f"onnxruntime has the provider '{name}' but cannot start it on this machine; its "
            "messages above say why. Use the provider cpu."
        )
    return opened


@functools.cache
def _warn_of_two_packages() -> None:
    """Warns, once, if several packages are installed that hold the module `onnxruntime`."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if len(found) > 1:
        named = " and ".join(f"{name} {version}" for name, version in found.items())
        warnings.warn(
            f"{named} are both installed, and each overwrites the other's files: providers may be "
            f"missing, or onnxruntime may fail. Write pip uninstall {' '.join(found)}, and then "
            "pip install the one that you need.",
            stacklevel=3,
        )
