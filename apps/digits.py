"""`packnet demo`: packs, exports and checks three tasks of digits."""

import dataclasses
import pathlib
import time

import keras
import numpy as np

import packnet_tf
from packnet_tf.apps.device.onnx_accuracy import onnx_accuracy
from packnet_tf.export import export_all
from packnet_tf.reporting.tables import count_bytes, text_table


@dataclasses.dataclass(frozen=True)
class Digits:
    """One task: images of some digits, float32 (n, 8, 8, 1) in 0 to 1, and their labels."""

    name: str
    prune_ratio: float
    digits: tuple[int, ...]
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


# Equal shares: these ratios give each task a third of the network.
TASKS = (
    ("digits_0_to_3", (0, 1, 2, 3), 2 / 3),
    ("digits_4_to_6", (4, 5, 6), 1 / 2),
    ("digits_7_to_9", (7, 8, 9), 0.0),
)


def load_tasks() -> list[Digits]:
    """Splits scikit-learn's digits into the three tasks; every fifth image is held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[..., None] / 16).astype("float32")
    fold = np.arange(len(images)) % 10
    splits = {"train": fold % 5 != 0, "validation": fold == 0, "test": fold == 5}
    tasks = []
    for name, digits, ratio in TASKS:
        arrays = {}
        for split, chosen in splits.items():
            rows = chosen & np.isin(data.target, digits)
            arrays[split] = (images[rows], np.searchsorted(digits, data.target[rows]))
        tasks.append(Digits(name, ratio, digits, **arrays))
    return tasks


def small_trunk() -> keras.Model:
    """Builds a convolutional network of about 6,000 weights for 8 x 8 pixels."""
    layers = [keras.Input((8, 8, 1), name="image")]
    for filters, strides in ((8, 1), (16, 2), (24, 2)):
        layers += [
            keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(16, activation="relu")]
    return keras.Sequential(layers, name="trunk")


def pack_digits(output, epochs: int, prune_epoch: int, seed: int) -> str:
    """Packs, exports and checks the three tasks; returns the closing summary.

    Raises:
        RuntimeError: a task's logits changed after its commit, which must never happen.
    """
    began = time.monotonic()
    output = pathlib.Path(output)
    keras.utils.set_random_seed(seed)
    tasks = load_tasks()
    net = packnet_tf.PackNet(small_trunk())
    accuracy, logits = {}, {}
    for task in tasks:
        digits = " ".join(map(str, task.digits))
        print(f"Task {task.name} ({digits}): {epochs} epochs, prune at {prune_epoch}", flush=True)
        packing = _train(net, task, epochs, prune_epoch)
        model = net.task_model(task.name)
        accuracy[task.name] = {
            **{moment: found["accuracy"] for moment, found in packing.around_prune.items()},
            "retrained": _accuracy(model, task.test),
        }
        logits[task.name] = model.predict(task.test[0], verbose=0)

    print("Exporting and checking ...", flush=True)
    samples = {task.name: task.test[0] for task in tasks}
    manifest = export_all(net, output / "onnx", samples=samples, verbose=False)
    net.save(output / "pack.keras")
    packnet_tf.plot_capacity(net.capacity(), output / "owners.png")
    for task, entry in zip(tasks, manifest["tasks"], strict=True):
        view = net.task_model(task.name)
        if not np.array_equal(view.predict(task.test[0], verbose=0), logits[task.name]):
            raise RuntimeError(f"Task '{task.name}' no longer answers as when it was committed.")
        accuracy[task.name]["onnx"] = onnx_accuracy(output / "onnx" / entry["file"], [task.test])
        accuracy[task.name]["forgetting"] = accuracy[task.name]["retrained"] - _accuracy(
            view, task.test
        )
    return _summary(net, output, manifest, accuracy, time.monotonic() - began)


def _train(net, task: Digits, epochs: int, prune_epoch: int) -> packnet_tf.PackNetCallback:
    model = net.add_task(
        task.name, keras.layers.Dense(len(task.digits)), classes=list(map(str, task.digits))
    )
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    packing = packnet_tf.PackNetCallback(
        task.prune_ratio, prune_epoch, retrain_learning_rate=1e-3, validation_data=task.test
    )
    model.fit(
        *task.train,
        epochs=epochs,
        validation_data=task.validation,
        callbacks=[packing, _Line(epochs, prune_epoch)],
        verbose=0,
    )
    return packing


class _Line(keras.callbacks.Callback):
    """Prints one short line per epoch."""

    def __init__(self, epochs: int, prune_epoch: int):
        super().__init__()
        self._epochs, self._prune_epoch = epochs, prune_epoch

    def on_epoch_end(self, epoch, logs=None):
        phase = "train" if epoch < self._prune_epoch else "retrain"
        print(
            f"  {phase:7} {epoch + 1:3}/{self._epochs}  loss {logs['loss']:.3f}  "
            f"validation accuracy {logs['val_accuracy']:.1%}  claimed {logs['claimed']:.1%}",
            flush=True,
        )


def _accuracy(model, data) -> float:
    images, labels = data
    return float(np.mean(model.predict(images, verbose=0).argmax(-1) == labels))


def _summary(net, output, manifest, accuracy, seconds: float) -> str:
    rows = [
        [name, *(f"{found[m]:.1%}" for m in ("before", "after", "retrained", "onnx")),
         f"{found['forgetting']:.3f}"]
        for name, found in accuracy.items()
    ]  # fmt: skip
    head = ["test accuracy", "before prune", "after it", "retrained", "ONNX, at the end"]
    separate = output / "separate"
    networks = 0
    for name in net.tasks:
        path = separate / f"{name}.keras"
        path.parent.mkdir(parents=True, exist_ok=True)
        net.unpack(name).save(path)
        networks += path.stat().st_size
    sizes = [[entry["file"], count_bytes(entry["bytes"])] for entry in manifest["tasks"]]
    sizes += [
        ["pack.keras, all three tasks", count_bytes((output / "pack.keras").stat().st_size)],
        ["three networks, separate/*.keras", count_bytes(networks)],
    ]
    worst = max(entry["relative_difference"] for entry in manifest["tasks"])
    return "\n".join(
        [
            "",
            text_table([*head, "forgetting"], rows),
            "",
            "Forgetting: after three tasks, all logits are bit for bit those of the commit.",
            f"ONNX files differ from Keras by at most {worst:.0e} of the largest logit.",
            f"Free capacity: {net.capacity().free:.1%}",
            "",
            text_table(["file", "size"], sizes),
            "",
            f"Who owns which share of every layer: {output / 'owners.png'}",
            f"Done in {seconds:.0f} seconds. Files: {output}/",
        ]
    )
