"""`packnet bench import`: importing packnet_tf beside importing Keras."""

import subprocess
import sys
from collections.abc import Callable, Iterator

from packnet_tf.apps.benches.rows import Row, timed
from packnet_tf.apps.benches.turns import in_turns

KERAS = "import tensorflow, keras"
SIDES = {
    KERAS: "import tensorflow, keras",
    "import packnet_tf": "import packnet_tf",
    "and its layers and nets": "import tensorflow, keras, packnet_tf; packnet_tf.PackNet",
    "and the trainer": "import tensorflow, keras, packnet_tf; packnet_tf.PackTrainer",
    "and the exporter": (
        "import tensorflow, keras, packnet_tf.export; packnet_tf.export.export_onnx"
    ),
}
MORE = 0.1  # seconds that ours may take more


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Times new Python processes."""
    sides = {
        side: lambda code=code: subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True
        )
        for side, code in SIDES.items()
        if side == KERAS or only(side)
    }
    say(f"{turns} turns of {len(sides)} processes")
    times = in_turns(sides, turns)
    for side in list(sides)[1:]:
        row = timed("new process", times, side, KERAS)
        more = [ours - theirs for ours, theirs in zip(times[side], times[KERAS], strict=True)]
        yield row
        yield timed("more than Keras", {side: more}, side, None, MORE)
