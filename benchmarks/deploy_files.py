"""Packs of random tasks, exported in every way: the files that `packnet bench deploy` measures.

Weights are random, because neither the size of a file nor its speed depends on what they are.
"""

import argparse
import gc
import json
import pathlib

import numpy as np

from benchmarks.trunks import CLASSES, build_trunk, packed
from packnet_tf.apps import cli

CALIBRATION = 32  # images


def export_every_way(trunk, tasks: int, folder, progress=print) -> dict:
    """Packs tasks into a trunk and exports them.

    Args:
        trunk: the model.
        tasks: how many.
        folder: for the files.
        progress: called with a line for each step.

    Returns:
        A dict: `parameters`, and `packed_parameters` among them; `bytes`, by name: `baked` (all
        files of all tasks), `baked_one` (the last task's), `bundle`, `graphs` (of it: what the
        tasks have for themselves), `shared` (and in common), `pack`, `float16` and `int8` (the
        last task's), `never_packed`; `files`, by case, those of the last task to be run;
        `errors`, by case, why there is none.
    """
    import keras

    from packnet_tf.export import export_all, export_bundle

    folder = pathlib.Path(folder)
    alone = keras.Model(trunk.inputs, keras.layers.Dense(CLASSES)(trunk.output))
    alone(np.zeros((1, *trunk.input_shape[1:]), np.float32))  # Keras exports what has been called
    progress("exporting it by Keras, never packed")
    path, errors, files = folder / "never_packed.onnx", {}, {}
    try:
        alone.export(str(path), format="onnx", verbose=False)
        files["never packed"] = path
    except Exception as error:
        errors["never packed"] = f"Keras's exporter: {type(error).__name__}: {error}"
    del alone
    parameters = trunk.count_params()
    progress(f"packing {tasks} tasks into {parameters:,} parameters")
    net = packed(trunk, tasks)
    del trunk
    gc.collect()
    net.save(folder / "pack.keras")
    progress("exporting a file per task")
    made = export_all(net, folder / "baked")
    progress("exporting the bundle")
    bundle = export_bundle(net, folder / "bundle")
    shape = net.task_model(net.tasks[-1]).input_shape[1:]
    images = np.random.default_rng(0).random((CALIBRATION, *shape), dtype=np.float32)
    last = net.tasks[-1:]
    name = made["tasks"][-1]["file"]
    files |= {"baked": folder / "baked" / name, "bundle": folder / "bundle" / name}
    for precision, calibration in (("float16", None), ("int8", images)):
        progress(f"exporting {precision}")
        where = folder / precision
        export_all(net, where, tasks=last, precision=precision, calibration=calibration)
        files[precision] = where / name
    graphs = sum(task["bytes"] for task in bundle["tasks"])
    shared = sum(file["bytes"] for file in bundle["shared"])
    sizes = {case: path.stat().st_size for case, path in files.items() if case != "bundle"}
    return {
        "parameters": parameters,
        "packed_parameters": net.capacity().sum()["total"],
        "bytes": {
            **{case.replace(" ", "_"): size for case, size in sizes.items()},
            "baked": sum(task["bytes"] for task in made["tasks"]),
            "baked_one": made["tasks"][-1]["bytes"],
            "bundle": graphs + shared,
            "graphs": graphs,
            "shared": shared,
            "pack": (folder / "pack.keras").stat().st_size,
        },
        "files": {case: str(path) for case, path in files.items()},
        "errors": errors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--image_size", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--trunk")
    parser.add_argument("--trunk_output")
    values = parser.parse_args()
    cli.start_keras()
    import keras

    keras.utils.set_random_seed(1)
    trunk = build_trunk(values.name, values.image_size, values.trunk, values.trunk_output)
    found = export_every_way(
        trunk, values.tasks, values.folder, lambda line: print(line, flush=True)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
