"""A small file stays small: nothing in it makes much memory, time or text of it."""

import io
import json
import pathlib
import time
import zipfile

import h5py
import numpy as np
import pytest

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import conv_trunk, packed
from packnet_tf.backend.json_files import DEPTH, parse_json
from packnet_tf.tasks.integrity.digests import digest_of

SECONDS, MEGABYTES, CHARACTERS = 2, 300, 1000
KERNEL = "trunk/layers/packed_conv2d/vars/kernel"


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The contents of a pack of two tasks."""
    path = tmp_path_factory.mktemp("pack") / "pack.keras"
    packed(conv_trunk(), one=0.5, two=0.5).save(path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path, members, *compressed):
    with zipfile.ZipFile(path, "w", compresslevel=1) as file:
        for name, content in members.items():
            kind = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            file.writestr(name, content, kind)
    return path


def weights(change):
    """A change of the HDF5 file."""

    def edit(members):
        data = io.BytesIO(members["model.weights.h5"])
        with h5py.File(data, "r+") as file:
            assert KERNEL in file
            change(file)
        return {**members, "model.weights.h5": data.getvalue()}

    return edit


def config(change):
    """A change of the JSON configuration; its digest is right again."""

    def edit(members):
        content = json.loads(members["config.json"])
        archive = content["config"]
        change(archive)
        archive["digest"] = digest_of({k: v for k, v in archive.items() if k != "digest"})
        return {**members, "config.json": json.dumps(content)}

    return edit


def member(name, content):
    return lambda members: {**members, name: content}


def replace_kernel(**kwargs):
    def change(file):
        shape = file[KERNEL].shape
        del file[KERNEL]
        file.create_dataset(KERNEL, dtype="float32", **{"shape": shape, **kwargs})

    return weights(change)


def link(made):
    return weights(lambda file: file.__setitem__("elsewhere", made))


def in_trunk(old, new):
    def change(content):
        text = json.dumps(content["trunk"])
        assert old in text
        content["trunk"] = json.loads(text.replace(old, new))

    return config(change)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


BOMBS = {
    "chunks": (replace_kernel(shape=(2**15, 2**15), chunks=(64, 64), compression="gzip"), "more"),
    "never_written": (replace_kernel(shape=(2**15, 2**15)), "more than"),
    "of_another_file": (replace_kernel(external=[("/etc/passwd", 0, 144)]), "another file"),
    "external_link": (link(h5py.ExternalLink("/tmp/other.h5", "/")), "is a link"),
    "soft_link": (link(h5py.SoftLink("/")), "is a link"),
    "units": (in_trunk('"units": 10', '"units": 1000000000'), "needs weights of 20,000,000,800"),
    "input": (in_trunk("[null, 6, 6, 1]", "[null, 6, 6, 1000000000]"), "needs weights of 144"),
    "deep": (config(lambda content: content["facts"].update(notes=nested(500))), "nested more"),
    "deeper": (member("config.json", "[" * 3_000_000), "nested more"),
    "lists": (member("config.json", f"[{'[],' * 1_000_000}1]"), "more than 200,000 lists"),
    "no_model": (member("config.json", "[]"), "describes no model"),
    "another_member": (member("assets/code.py", "1"), "'assets/code.py'"),
    "outside": (member("assets/../../x.txt", "1"), "'assets/../../x.txt'"),
}  # fmt: skip


def high_water():
    """The most memory that this process has had since it was last asked, in MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def refused(path):
    """Why a file is refused; checks what that costs."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, began = high_water(), time.process_time()
    with pytest.raises(ValueError) as error:
        packnet_tf.load(path)
    assert time.process_time() - began < SECONDS
    assert high_water() - before < MEGABYTES
    assert len(str(error.value)) <= CHARACTERS
    assert f"'{path}'" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_would_become_much_larger_is_refused(members, tmp_path, bomb):
    change, said = BOMBS[bomb]
    assert said in refused(write(tmp_path / "pack.keras", change(members)))


@pytest.mark.parametrize("name", ["model.weights.h5", *slow("config.json")])
def test_a_member_that_compression_makes_small_is_refused(members, tmp_path, name):
    filled = members[name] + b" " * 320_000_000
    path = write(tmp_path / "pack.keras", {**members, name: filled}, name)
    assert path.stat().st_size < 2**22
    assert "more than a file of this size may hold" in refused(path)


def test_a_pack_that_was_compressed_is_read(members, tmp_path):
    path = write(tmp_path / "pack.keras", members, *members)
    assert path.stat().st_size < len(members["model.weights.h5"])
    assert packnet_tf.load(path).tasks == ("one", "two")


def test_a_head_that_needs_more_than_the_file_has_is_refused(members, tmp_path):
    def widen(content):
        tasks = json.loads(content["tasks"])
        tasks[0]["head"]["config"]["units"] = 10**9
        content["tasks"] = json.dumps(tasks)

    net = packnet_tf.load(write(tmp_path / "pack.keras", config(widen)(members)))
    with pytest.raises(ValueError, match="head of task 'one' needs weights of 44,000,000,000"):
        net.task_model("one")
    assert net.task_model("two").count_params() > 0


def test_a_long_error_of_keras_is_shortened(members, tmp_path):
    def rename(content):
        for layer in content["trunk"]["config"]["layers"]:
            layer["config"]["note"] = "x" * 20_000

    text = refused(write(tmp_path / "pack.keras", config(rename)(members)))
    assert text.startswith("Cannot read pack")


def test_what_is_nested_as_deep_as_allowed_is_read():
    assert parse_json(json.dumps(nested(DEPTH))) == nested(DEPTH)
    with pytest.raises(ValueError, match=f"nested more than {DEPTH} deep"):
        parse_json(json.dumps(nested(DEPTH + 1)))
    with pytest.raises(ValueError, match="more than 3 lists and dicts"):
        parse_json("[[], {}, []]", most=3)


def test_metadata_is_refused_that_could_not_be_read_again(members, tmp_path):
    net = packnet_tf.load(write(tmp_path / "pack.keras", members))
    with pytest.raises(ValueError, match="nested more than") as error:
        net.note_metadata("one", deep=nested(DEPTH), rest=np.arange(3).tolist())
    assert len(str(error.value)) <= CHARACTERS
    net.note_metadata("one", deep=nested(DEPTH // 2))
    net.save(tmp_path / "pack.keras")
    assert packnet_tf.load(tmp_path / "pack.keras").metadata("one")["deep"] == nested(DEPTH // 2)
