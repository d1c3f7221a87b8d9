"""Registers the packed layers with Keras once it is imported, without importing it."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTERS = "packnet_tf.tasks.task_model"  # with all the modules that it imports


class _Hook:
    """Import hook: imports `REGISTERS` once Keras is there and no module of ours is half made.

    Ours import Keras themselves; what is imported the moment that Keras comes would find the one
    that asked for it without the names it is going to have.
    """

    def __init__(self) -> None:
        self.half_made = 0  # modules of ours, one importing the next

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        ours = name.startswith("packnet_tf.")
        if not ours and name != "keras":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:  # None: a folder without __init__.py
            # Somebody may only be asking: nothing happens before it is executed.
            watched = self._watched(spec.loader.exec_module, ours)
            vars(spec.loader)["exec_module"] = watched
        return spec

    def _watched(
        self, execute: Callable[[ModuleType], None], ours: bool
    ) -> Callable[[ModuleType], None]:
        def execute_and_register(module: ModuleType) -> None:
            self.half_made += ours
            try:
                execute(module)
            finally:
                self.half_made -= ours
            if self in sys.meta_path and not self.half_made and "keras" in sys.modules:
                sys.meta_path.remove(self)
                importlib.import_module(REGISTERS)

        return execute_and_register


def register_with_keras() -> None:
    """Registers the packed layers: now if Keras is imported, else as soon as it is."""
    if "keras" in sys.modules:
        importlib.import_module(REGISTERS)
    else:
        sys.meta_path.insert(0, _Hook())
