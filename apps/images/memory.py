"""The memory that is available on this machine."""

import math
import pathlib

_CGROUP = pathlib.Path("/sys/fs/cgroup")  # limits of a container
_MEMINFO = pathlib.Path("/proc/meminfo")


def available_memory(meminfo: pathlib.Path = _MEMINFO, cgroup: pathlib.Path = _CGROUP) -> float:
    """Returns the bytes of memory that can still be taken; infinity if the system does not say.

    Args:
        meminfo: the file in which Linux says it.
        cgroup: the folder with the limits of the container.
    """
    found = [math.inf]
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):  # not Linux
        pass
    try:
        limit = int((cgroup / "memory.max").read_text())
        found.append(limit - int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return min(found)
