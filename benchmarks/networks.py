"""The whole way of PackNet, for every network of keras.applications."""

import gc
import json
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.processes import in_process
from packnet_tf.apps import cli
from packnet_tf.reporting.tables import text_table

# The smallest inputs these take; the others take 32 pixels.
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
BATCH = 2
COLUMNS = {
    "network": "network",
    "parameters": "parameters",
    "packed_layers": "packed layers",
    "share": "share packed",
    "bit_exact": "bit-exact",
    "onnx_difference": "ONNX difference",
    "seconds": "seconds",
    "memory_gb": "GB",
}


def network_names() -> list[str]:
    """All networks of keras.applications."""
    import keras

    return sorted(name for name in dir(keras.applications) if name[0].isupper())


def whole_way(name: str, tasks: int = 3) -> dict:
    """Packs some tasks into one network, and compares all that must be equal.

    Every task takes one step of AdamW with weight decay and moving averages of the weights, is
    pruned by half and committed. Then the first task's logits must be those at its commit, bit
    for bit, from its first model, a new view, the unpacked model, and a pack saved and loaded;
    and the exported file must answer as Keras.

    Args:
        name: a network of keras.applications; its weights are random, its input is small.
        tasks: how many.

    Returns:
        A dict: `network`, `parameters`, `packed_layers`, `packed_parameters`, `share`,
        `bit_exact`, `onnx_difference` (relative to the largest logit), `seconds`, `memory_gb`.
    """
    import keras

    import packnet_tf
    from packnet_tf.export import export_onnx

    began = time.perf_counter()
    keras.utils.set_random_seed(1)
    size = SIZES.get(name, 32)
    trunk = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
    )
    x = np.random.default_rng(0).uniform(0, 255, (BATCH, size, size, 3)).astype("float32")
    parameters, start = trunk.count_params(), np.array(trunk(x, training=False))
    net = packnet_tf.PackNet(trunk)
    del trunk
    first = logits = None
    exact = True
    for number in range(tasks):
        model = net.add_task(f"task{number + 1}", keras.layers.Dense(3))
        if number == 0:
            exact &= np.array_equal(np.array(model.trunk(x, training=False)), start)
        optimizer = keras.optimizers.AdamW(0.001, weight_decay=0.1, use_ema=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, run_eagerly=True)
        claimed = {path: entry["claimed"] for path, entry in net.capacity().items()}
        model.train_on_batch(x, np.arange(BATCH) % 3)
        released = net.prune(0.5)
        exact &= released == {path: round(0.5 * count) for path, count in claimed.items()}
        net.commit()
        if first is None:
            first, logits = model, np.array(model(x, training=False))
        model.optimizer = None  # three times the network, in a model that is kept
        del optimizer, model
        gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        net.save(pathlib.Path(folder) / "pack.keras")
        loaded = packnet_tf.load(pathlib.Path(folder) / "pack.keras")
        for model in (first, net.unpack("task1"), loaded.task_model("task1")):
            exact &= np.array_equal(np.array(model(x, training=False)), logits)
        capacity, counts = net.capacity(), loaded.capacity()
        exact &= counts == capacity
        del first, model, net
        gc.collect()
        difference = export_onnx(loaded, "task1", pathlib.Path(folder) / "m.onnx", samples=x)
    total = capacity.sum()["total"]
    return {
        "network": name,
        "parameters": parameters,
        "packed_layers": len(capacity),
        "packed_parameters": total,
        "share": total / parameters,
        "bit_exact": bool(exact),
        "onnx_difference": difference,
        "seconds": time.perf_counter() - began,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def bench_networks(names: Sequence[str], progress=print) -> list[dict]:
    """Runs `whole_way` for each network in a process of its own, so that memory is returned.

    Args:
        names: networks of keras.applications.
        progress: called with a line for each network.

    Returns:
        The results; of a network that failed, `network` and `error`.
    """
    results = []
    for number, name in enumerate(names, start=1):
        try:
            result = in_process("benchmarks.networks", name)
        except RuntimeError as error:
            result = {"network": name, "error": str(error)}
        results.append(result)
        said = result.get("error") or ", ".join(_cells(result)[1:])
        progress(f"{number} of {len(names)}: {name}: {said}")
    return results


def networks_table(results: Sequence[dict]) -> str:
    """Lays out the results of `bench_networks`, with the errors below."""
    table = text_table(list(COLUMNS.values()), [_cells(result) for result in results])
    errors = [f"{result['network']}: {result['error']}" for result in results if "error" in result]
    return "\n".join([table, *errors])


def _cells(result: dict) -> list[str]:
    if "error" in result:
        return [result["network"], "FAILED", *[""] * (len(COLUMNS) - 2)]
    form = {
        "parameters": "{:,}",
        "share": "{:.2%}",
        "onnx_difference": "{:.1e}",
        "seconds": "{:.0f}",
        "memory_gb": "{:.1f}",
    }
    shown = {**result, "bit_exact": "yes" if result["bit_exact"] else "NO"}
    return [form.get(key, "{}").format(shown[key]) for key in COLUMNS]


if __name__ == "__main__":
    cli.start_keras()
    print(json.dumps(whole_way(sys.argv[1])))
