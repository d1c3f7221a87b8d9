"""Mutations of every file that is read: bytes, values with right checksums, bombs, and paths."""

import contextlib
import json
import pathlib
import random
import shutil
import zipfile
from collections.abc import Callable

import keras
import numpy as np
from PIL import Image

import packnet_tf
from packnet_tf.apps.images.model_files import read_model
from packnet_tf.apps.images.pixels import read_image
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.export import export_all, export_bundle, verify
from packnet_tf.export.manifest import describe_file
from packnet_tf.trainer.run import Run
from packnet_tf.training.phases import OneShot
from torture import damage, subjects
from torture.outcome import WHOLE, Fault, refused

PATHS = ("../secret.bin", "../../secret.bin", "/etc/passwd", "inside/../../secret.bin", "..", "")
COMPARISON = pathlib.Path(__file__).parents[2] / "examples" / "four_tasks.yaml"
Attack = Callable[[random.Random, pathlib.Path, pathlib.Path], str]


def attack(seed: int, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Changes a file and reads it."""
    rng = random.Random(seed)
    [target] = rng.choices(list(TARGETS), [share for share, _ in TARGETS.values()])
    return TARGETS[target][1](rng, folder, originals)


# -- Packs ---------------------------------------------------------------------------------------


def pack_bytes(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Damages the file itself, as disks and networks do."""
    path = folder / "pack.keras"
    path.write_bytes(rng.choice(damage.ANY_BYTES)((originals / subjects.OLD).read_bytes(), rng))
    return subjects.look(path, *subjects.known(originals, subjects.OLD))


def pack_values(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Edits one value in the file; its checksums are right."""
    path = folder / "pack.keras"
    content = damage.members((originals / subjects.OLD).read_bytes())
    name = rng.choice(["config.json"] * 6 + ["model.weights.h5"] * 6 + ["metadata.json"])
    how = damage.edit_json if name.endswith(".json") else damage.edit_arrays
    if rng.random() < 0.25:
        how = rng.choice(damage.ANY_BYTES)
    content[name] = how(content[name], rng)
    path.write_bytes(damage.zipped(content))
    return subjects.look(path, *subjects.known(originals, subjects.OLD))


def pack_bomb(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Makes a small file that is large in memory."""
    path, kind = folder / "pack.keras", rng.choice(damage.BOMBS)
    made = originals / f"{kind}.bomb"
    if not made.exists():
        content = damage.members((originals / subjects.OLD).read_bytes())
        bomb = damage.bombs(kind, json.loads(content["config.json"]))
        aside = folder / "bomb"
        aside.write_bytes(damage.zipped({**content, **bomb}, pressed=True))
        aside.replace(made)
        return WHOLE  # the next attack of this kind reads it
    shutil.copy(made, path)
    try:
        return subjects.look(path, *subjects.known(originals, subjects.OLD))
    except MemoryError:
        raise
    except Fault as fault:
        raise Fault(fault.kind, f"{kind}: {fault.text}") from None


def pack_paths(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Lets names in the file, or the file itself, lead elsewhere."""
    path, old = folder / "pack.keras", (originals / subjects.OLD).read_bytes()
    content, target = damage.members(old), rng.choice(PATHS)
    how = rng.choice(["member", "renamed", "twice", "link", "folder", "task", "paths"])
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(target or "pack.keras")  # or to itself
    elif how == "twice":
        path.write_bytes(old)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(rng.choice(list(content)), b"{}")
    else:
        if how == "member":
            content[f"assets/{target}"] = b"planted"
        elif how == "renamed":
            content[target] = content.pop(rng.choice(list(content)))
        else:
            config = json.loads(content["config.json"])
            if how == "paths":
                config["config"]["facts"]["paths"] = [target] * 4
            else:
                [first, *others] = json.loads(config["config"]["tasks"])
                config["config"]["tasks"] = json.dumps([{**first, "name": target}, *others])
            content["config.json"] = json.dumps(config).encode()
        path.write_bytes(damage.zipped(content))
    return subjects.look(path, *subjects.known(originals, subjects.OLD))


# -- Exported folders ----------------------------------------------------------------------------


def export_bytes(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Damages a file of an export, or its manifest, or takes another one for it."""
    kind, path = _export(rng, folder, originals)
    file = damage.random_file(path, rng)
    how = rng.choice(["bytes"] * 5 + ["values"] * 3 + ["missing", "swapped", "folder", "link"])
    if how == "values":
        file = path / "manifest.json"
        file.write_bytes(damage.edit_json(file.read_bytes(), rng))
    elif how == "bytes":
        file.write_bytes(rng.choice(damage.ANY_BYTES)(file.read_bytes(), rng))
    elif how == "swapped":
        other = damage.random_file(path, rng)
        first, second = file.read_bytes(), other.read_bytes()
        file.write_bytes(second)
        other.write_bytes(first)
    else:
        file.unlink()
        if how == "folder":
            file.mkdir()
        elif how == "link":
            file.symlink_to("../../secret.bin")
    return _read_export(rng, kind, path, originals)


def export_paths(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Lets the manifest, or a graph, name files elsewhere."""
    kind, path = _export(rng, folder, originals)
    manifest = json.loads((path / "manifest.json").read_bytes())
    entries = [*manifest["tasks"], *manifest.get("shared", [])]
    entry, target = rng.choice(entries), rng.choice(PATHS)
    if rng.random() < 0.5 or kind != "bundle":
        entry["file"] = target
        if rng.random() < 0.5:
            secret = folder.parent / "secret.bin"
            entry.update({**describe_file(secret), "file": target})
    else:  # a graph of which the manifest has the right checksum
        import onnx

        graph = path / manifest["tasks"][0]["file"]
        model = onnx.load(str(graph), load_external_data=False)
        for tensor in model.graph.initializer:
            for fact in tensor.external_data:
                if fact.key == "location":
                    fact.value = target
        graph.write_bytes(model.SerializeToString())
        manifest["tasks"][0].update(describe_file(graph))
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return _read_export(rng, kind, path, originals)


def graph_bytes(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Damages a file that no manifest describes: it may answer differently, but not crash."""
    shutil.copytree(originals / f"{subjects.OLD}.{subjects.MULTITASK}", folder / "all")
    file = folder / "all" / "all.onnx"
    file.write_bytes(rng.choice(damage.ANY_BYTES)(file.read_bytes(), rng))
    return _any_answer(lambda: subjects.file_answers(folder / "all"), file)


def _export(
    rng: random.Random, folder: pathlib.Path, originals: pathlib.Path
) -> tuple[str, pathlib.Path]:
    kind = rng.choice(list(subjects.FOLDERS))
    shutil.copytree(originals / f"{subjects.OLD}.{kind}", folder / kind)
    return kind, folder / kind


def _read_export(rng: random.Random, kind: str, path: pathlib.Path, originals: pathlib.Path) -> str:
    [state] = subjects.known(originals, f"{subjects.OLD}.{kind}")
    outcome = subjects.look_at_files(path, state)
    if rng.random() < 0.05:  # the readers that also need the pack, which take seconds
        net = packnet_tf.load(originals / subjects.OLD)
        try:
            with contextlib.redirect_stdout(None):
                verify(net, path)
        except Exception as error:
            refused(error, path, *path.iterdir())
        try:
            if kind == "bundle":
                net = packnet_tf.load(originals / subjects.NEW)
                export_bundle(net, path, update_from=path, verbose=False)
            else:
                export_all(net, path, verbose=False)
        except Exception as error:
            refused(error, path, *path.iterdir())
    return outcome


# -- Other files ---------------------------------------------------------------------------------


def run_bytes(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Damages a file of the directory of an unfinished run, and resumes it."""
    net = packnet_tf.load(originals / subjects.OPEN)
    model = net.open_model
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    begun = OneShot(model, 0.5, 2)
    run = Run(folder / "run", writes=True)
    run.open(net, {"epochs": 3}, {"batch_size": 8})
    run.remember(subjects.NEXT, {"rate": 0.1})
    run.history["one"] = {"prune_ratio": 0.5, "epochs": []}
    run.history.write(folder / "run" / "history.json")
    plan = {"prune": 0.5, "epochs": 2, "retrain_epochs": 1}
    run.checkpoint(subjects.NEXT, model, begun, {"epochs": []}, plan)
    file = damage.random_file(folder / "run", rng)
    old = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.6:
        file.write_bytes(damage.edit_json(old, rng))
    elif file.suffix == ".npz" and rng.random() < 0.6:
        content = damage.members(old)
        name = rng.choice(list(content))
        content[name] = rng.choice(damage.ANY_BYTES)(content[name], rng)
        file.write_bytes(damage.zipped(content))
    else:
        file.write_bytes(rng.choice(damage.ANY_BYTES)(old, rng))
    again = Run(folder / "run", writes=True)

    def resume() -> None:
        again.open(net, {"epochs": 3}, {"batch_size": 8})
        again.memory(subjects.NEXT)
        again.resume(subjects.NEXT, model, begun, plan)

    outcome = _any_answer(resume, folder / "run", *(folder / "run").iterdir())
    subjects.compare(subjects.answers(net), *subjects.known(originals, subjects.OLD))
    return outcome


def comparison(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Damages a file of `packnet compare`; or aliases in it multiply."""
    path, old = folder / "comparison.yaml", COMPARISON.read_bytes()
    if rng.random() < 0.1:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif rng.random() < 0.1:
        path.write_text("[" * 20_000, encoding="utf-8")
    else:
        path.write_bytes(rng.choice(damage.ANY_BYTES)(old, rng))
    return _any_answer(lambda: read_comparison(path), path)


def image(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Damages an image; or it is small in the file and large in memory."""
    path = folder / f"photo.{rng.choice(['png', 'jpg', 'bmp', 'webp', 'tif'])}"
    pixels = np.random.default_rng(rng.randrange(99)).integers(0, 255, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    if rng.random() < 0.02:
        path.write_bytes(damage.large_png())  # Pillow looks at the contents, not at the name
    else:
        path.write_bytes(rng.choice(damage.ANY_BYTES)(path.read_bytes(), rng))
    return _any_answer(lambda: read_image(path, 6, 6, 3), path)


def trunk(rng: random.Random, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Damages the file of a user's trunk."""
    path, old = folder / "trunk.keras", (originals / subjects.TRUNK).read_bytes()
    if rng.random() < 0.5:
        path.write_bytes(rng.choice(damage.ANY_BYTES)(old, rng))
    else:
        content = damage.members(old)
        content["config.json"] = damage.edit_json(content["config.json"], rng)
        path.write_bytes(damage.zipped(content))
    return _any_answer(lambda: read_model(str(path)), path)


def _any_answer(read: Callable[[], object], *names: pathlib.Path) -> str:
    """Returns `WHOLE` or `REFUSED`, for files whose contents nothing protects."""
    try:
        read()
    except Exception as error:
        return refused(error, *names)
    return WHOLE


TARGETS: dict[str, tuple[float, Attack]] = {
    "pack, bytes": (20, pack_bytes),
    "pack, values": (40, pack_values),
    "pack, bomb": (2, pack_bomb),
    "pack, paths": (5, pack_paths),
    "export, bytes": (20, export_bytes),
    "export, paths": (6, export_paths),
    "graph": (5, graph_bytes),
    "run": (6, run_bytes),
    "comparison": (6, comparison),
    "image": (6, image),
    "trunk": (4, trunk),
}
