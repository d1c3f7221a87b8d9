"""What is attacked: two packs, of which one has a task more, and everything exported from them."""

import contextlib
import os
import pathlib
import pickle

import keras
import numpy as np
import onnxruntime
from keras import layers

import packnet_tf
from helpers.pack_helpers import conv_trunk, jolt, logits, pack_task, packed
from packnet_tf.apps.commands.predict import open_models
from packnet_tf.backend.atomic import own_prefix
from packnet_tf.export import export_all, export_bundle, export_multitask
from torture.outcome import ALIEN, DIFFERENT, LOST, WHOLE, Fault, refused

OLD, NEW, OPEN, TRUNK = "old.keras", "new.keras", "open.keras", "trunk.keras"
FOLDERS = {"files": export_all, "bundle": export_bundle}
MULTITASK = "multitask"
NEXT = "next"  # the task that the new pack has and the old one lacks

Answers = dict[str, bytes]


def images() -> np.ndarray:
    """Returns the inputs on which answers are compared, float32 (4, 6, 6, 1)."""
    return np.random.default_rng(3).normal(size=(4, 6, 6, 1)).astype("float32")


def head() -> layers.Layer:
    """Returns the head of a further task."""
    return layers.Dense(3, name="logits")


def make(folder: pathlib.Path) -> None:
    """Writes the packs, the exports, and their answers to a folder."""
    keras.utils.set_random_seed(0)
    trunk = conv_trunk()
    trunk.save(folder / TRUNK)
    net = packed(trunk, one=0.5, two=0.5)
    pack_task(net, "three", overlay=0.1, ratio=0.9, seed=40)
    net.note_metadata("one", source="a garden")
    net.save(folder / OLD)
    jolt(net.add_task(NEXT, head()), seed=50)
    net.save(folder / OPEN)
    net.prune(0.5)
    net.commit()
    net.save(folder / NEW)
    for state in (OLD, NEW):
        found = packnet_tf.load(folder / state)
        for kind, export in FOLDERS.items():
            with contextlib.redirect_stdout(None):
                export(found, folder / f"{state}.{kind}", verbose=False)
        export_multitask(found, folder / f"{state}.{MULTITASK}" / "all.onnx", verbose=False)
    known = {state: answers(packnet_tf.load(folder / state)) for state in (OLD, NEW)}
    for path in folder.glob("*.keras.*"):
        known[path.name] = file_answers(path)
    (folder / "answers.pickle").write_bytes(pickle.dumps(known))


def warm() -> None:
    """Lets TensorFlow compute something, so that all its threads and tables are there."""
    onnxruntime.set_default_logger_severity(4)
    logits(packed(conv_trunk(), one=0.5).task_model("one"), images())


def known(originals: pathlib.Path, *names: str) -> list[Answers]:
    """Returns the answers of packs and exports, by task, as `make` has found them."""
    every = pickle.loads((originals / "answers.pickle").read_bytes())
    return [every[name] for name in names]


def answers(net: packnet_tf.PackNet) -> Answers:
    """Returns the logits of every committed task, as bytes."""
    return {task: answer(net.task_model(task)) for task in net.tasks}


def answer(model: keras.Model) -> bytes:
    """Returns the logits of a task's model."""
    return logits(model, images()).tobytes()


def file_answers(path: pathlib.Path) -> Answers:
    """Returns the probabilities of every task of an export, as `packnet predict` finds them."""
    pixels = np.random.default_rng(3).integers(0, 256, (4, 6, 6, 1), np.uint8)
    file = path / "all.onnx"
    models = open_models(os.fspath(file if file.exists() else path), "0,1", 6)
    return {model.task: repr(model.top_of(list(pixels), 3)).encode() for model in models}


def compare(found: Answers, *states: Answers) -> str:
    """Returns `WHOLE` if the answers are those of one state.

    Raises:
        Fault: a task is lost, or answers differently.
    """
    if found in states:
        return WHOLE
    every = [set(state) for state in states]
    if set(found) not in every:
        raise Fault(LOST, f"the tasks are {sorted(found)}, not {' or '.join(map(str, every))}")
    wrong = [t for t in found if all(found[t] != state.get(t) for state in states)]
    raise Fault(DIFFERENT, f"of tasks {wrong or 'of both states'}")


def look(path: pathlib.Path, *states: Answers) -> str:
    """Opens a pack and compares it with what it may hold.

    Returns:
        `WHOLE` or `REFUSED`.

    Raises:
        Fault: it is something else.
    """
    try:
        found = answers(packnet_tf.load(path))
    except Exception as error:
        return refused(error, path)
    return compare(found, *states)


def look_at_files(path: pathlib.Path, *states: Answers) -> str:
    """Opens an export; each answer must be that of one state.

    While an export is replaced, a reader finds files of two: each is refused, or whole.
    """
    try:
        found = file_answers(path)
    except Exception as error:
        return refused(error, path, *path.iterdir())
    wrong = [t for t in found if all(found[t] != state.get(t) for state in states)]
    if wrong:
        raise Fault(DIFFERENT, f"of tasks {wrong} in {path.name}")
    return WHOLE


def left_behind(folder: pathlib.Path) -> None:
    """Refuses files that a write has left.

    Raises:
        Fault: there is a temporary file or a lock.
    """
    prefix = own_prefix().split("-")[0]
    found = [p.name for p in folder.rglob(".*") if p.name.startswith(prefix) or ".lock" in p.name]
    if found:
        raise Fault(ALIEN, f"left behind: {sorted(found)}")
