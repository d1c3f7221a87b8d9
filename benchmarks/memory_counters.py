"""Who counts the bytes that training takes: TensorFlow's allocator, or else the system.

On a GPU, and on a CPU with oneDNN, TensorFlow's allocator counts what is in use. What a process has
resident is more: allocators keep what was freed.
"""

from packnet_tf.apps.device.memory import memory, restart_peak


class Allocator:
    """Bytes that TensorFlow has allocated on a device.

    Args:
        device: "GPU:0", say.
    """

    name = "TensorFlow's allocator"

    def __init__(self, device: str):
        self._device = device

    @classmethod
    def of_device(cls) -> "Allocator | None":
        """That of the GPU, or of the CPU where there is none; None where it does not count."""
        import keras

        if keras.backend.backend() != "tensorflow":
            return None
        import tensorflow as tf

        one = cls("GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0")
        try:
            one.restart()
        except ValueError:
            return None
        return one

    def restart(self) -> None:
        """Counts the peak from now on."""
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats(self._device)

    def now(self) -> int:
        return self._info()["current"]

    def peak(self) -> int:
        return self._info()["peak"]

    def _info(self) -> dict:
        import tensorflow as tf

        return tf.config.experimental.get_memory_info(self._device)


class Resident:
    """Bytes that the process has resident beyond what it had when this was made.

    Raises:
        RuntimeError: the system does not tell.
    """

    name = "the system"

    def __init__(self):
        if memory() is None:
            raise RuntimeError("the memory of a process can be measured on Linux only")
        self._base = memory().resident

    def restart(self) -> None:
        """Counts the peak from now on."""
        restart_peak()

    def now(self) -> int:
        return memory().resident - self._base

    def peak(self) -> int:
        return memory().peak - self._base
