"""Packs of random tasks, exported in every way: the files that `packnet bench deploy` measures.

Weights are random, because neither the size of a file nor its speed depends on what they are.
"""

import argparse
import gc
import json
import pathlib

import numpy as np

from packnet_tf.apps import cli

DARKNET = "TinyDarknet"
SIZES = {DARKNET: 96}  # pixels; the others take 224
CLASSES = 10
CALIBRATION = 32  # images
# Tiny Darknet as published: filters of its convolutions, 3 x 3 and 1 x 1 ("P": a pooling).
DARKNET_LAYERS = (
    *((16, 3), "P", (32, 3), "P"),
    *((16, 1), (128, 3), (16, 1), (128, 3), "P"),
    *((32, 1), (256, 3), (32, 1), (256, 3), "P"),
    *((64, 1), (512, 3), (64, 1), (512, 3), (128, 1)),
)


def build_trunk(name: str, image_size: int, file: str | None = None, output: str | None = None):
    """Makes a trunk.

    Args:
        name: "TinyDarknet" or a network of keras.applications. VGG16 comes with its two dense
            layers, as in the PackNet paper, the others with a mean over the picture.
        image_size: height and width in pixels.
        file: for TinyDarknet, a `.keras` model; without it weights are random.
        output: of that model, the layer to end at; default its last one.

    Returns:
        A functional `keras.Model` that takes images (batch, image_size, image_size, 3).
    """
    import keras

    from packnet_tf.apps.trunks import load_trunk

    shape = (image_size, image_size, 3)
    if name == DARKNET:
        return tiny_darknet(shape) if file is None else load_trunk(file, image_size, output)
    build = getattr(keras.applications, name)
    if name.startswith("VGG"):
        whole = build(weights=None, input_shape=shape)
        return keras.Model(whole.inputs, whole.get_layer("fc2").output, name="trunk")
    return build(weights=None, include_top=False, input_shape=shape, pooling="avg")


def tiny_darknet(shape: tuple[int, int, int]):
    """Tiny Darknet without its ImageNet head: 15 convolutions, 128 features."""
    import keras
    from keras import layers

    inputs = keras.Input(shape, name="image")
    x = inputs
    for number, layer in enumerate(DARKNET_LAYERS, start=1):
        if layer == "P":
            x = layers.MaxPooling2D(padding="same", name=f"pool{number}")(x)
            continue
        filters, size = layer
        x = layers.Conv2D(filters, size, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        x = layers.LeakyReLU(0.1, name=f"leaky{number}")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="mean")(x), name="trunk")


def packed(trunk, tasks: int):
    """A pack of tasks with equal shares; random steps take the place of training."""
    import keras

    import packnet_tf

    net = packnet_tf.PackNet(trunk)
    for number, ratio in enumerate(packnet_tf.equal_shares(tasks), start=1):
        model = net.add_task(f"task{number}", keras.layers.Dense(CLASSES))
        _step(model, np.random.default_rng(number))
        net.prune(ratio)
        net.commit()
    return net


def _step(model, rng) -> None:
    """Moves all that is trained by a tenth of its spread, so that all tasks differ."""
    import keras

    for variable in model.trainable_variables:
        values = keras.ops.convert_to_numpy(variable)
        step = rng.standard_normal(values.shape, dtype=np.float32)
        variable.assign(values + step * np.float32(0.1 * values.std() + 0.01))


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
    (values.folder / "exported.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
