"""The memory that a process can still take."""

import math

import pytest

from packnet_tf.apps.images.memory import available_memory


@pytest.mark.parametrize(
    ("meminfo", "limit", "used", "available"),
    [
        ("MemTotal: 100 kB\nMemAvailable:   50 kB\n", None, None, 51200),
        ("MemTotal: 100 kB\nMemAvailable:   50 kB\n", "max", "10", 51200),
        ("MemTotal: 100 kB\nMemAvailable:   50 kB\n", "1000", "400", 600),
        ("MemTotal: 100 kB\n", None, None, math.inf),
        (None, None, None, math.inf),
    ],
)
def test_the_tightest_limit_counts(meminfo, limit, used, available, tmp_path):
    for name, text in {"meminfo": meminfo, "memory.max": limit, "memory.current": used}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    assert available_memory(tmp_path / "meminfo", tmp_path) == available
