"""Promise 7: a damaged file is refused by name, and a crash leaves the old one whole."""

import json
import math
import os
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf
from helpers.pack_helpers import conv_trunk, data, logits, mlp_trunk, pack_task, packed
from packnet_tf.tasks.integrity.digests import digest_of
from packnet_tf.tasks.storage import FORMAT


@pytest.fixture(scope="module")
def pack_bytes(tmp_path_factory):
    """A pack of two tasks, as a file."""
    path = tmp_path_factory.mktemp("saved") / "pack.keras"
    packed(conv_trunk(), one=0.5, two=0.5).save(path)
    return path.read_bytes()


@pytest.fixture
def path(pack_bytes, tmp_path):
    """A copy of that file."""
    (tmp_path / "pack.keras").write_bytes(pack_bytes)
    return tmp_path / "pack.keras"


def rewrite(path, name, change):
    """Changes one member of a .keras file; the checksums are right again."""
    with zipfile.ZipFile(path) as file:
        members = {member: file.read(member) for member in file.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as file:
        for member, content in members.items():
            if content is not None:
                file.writestr(member, content)


def configure(path, change):
    """Changes the JSON configuration of a .keras file; its digest is right again."""

    def edit(content):
        config = json.loads(content)
        change(config)
        archive = config["config"]
        archive["digest"] = digest_of({k: v for k, v in archive.items() if k != "digest"})
        return json.dumps(config)

    rewrite(path, "config.json", edit)


def refused(path):
    """The reason for which a file is refused; it must name the file."""
    with pytest.raises(ValueError) as error:
        packnet_tf.load(path)
    text = str(error.value)
    assert f"'{path}'" in text
    return text


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, part):
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    text = refused(path)
    assert text.startswith(f"'{path}' is damaged or not a .keras file: ")
    assert text.endswith("(is it cut short?). Restore it from a backup, or save the pack again.")


def test_a_flipped_bit_in_the_weights_is_refused(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert refused(path) == (
        f"'{path}' is damaged: the checksum of its 'model.weights.h5' is wrong. Restore it from a "
        "backup, or save the pack again."
    )


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "pack.keras"
    path.write_text("no zip archive at all")
    assert refused(path).startswith(f"'{path}' is damaged or not a .keras file: ")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    assert refused(path) == (
        f"'{path}' is damaged: it lacks 'model.weights.h5'. Restore it from a backup, or save "
        "the pack again."
    )


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    assert refused(tmp_path / "run") == (
        f"'{tmp_path / 'run'}' is a folder; expected a .keras file. Write "
        f"'{tmp_path / 'run' / 'pack.keras'}'."
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        packnet_tf.load(tmp_path / "none.keras")
    assert str(error.value) == (
        f"There is no pack '{tmp_path / 'none.keras'}'. net.save(path) writes one."
    )


def test_a_plain_keras_model_is_refused(tmp_path):
    path = tmp_path / "plain.keras"
    conv_trunk().save(path)
    assert refused(path) == (
        f"'{path}' is not a pack but a saved Functional. Read it with keras.saving.load_model; to "
        "pack it as a trunk, write packnet_tf.PackNet(model)."
    )


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        ({"format": 99, "version": "7.1"}, "Install packnet_tf 7.1, which wrote it, or a later"),
        ({"format": 99, "version": 7.1}, "Install the packnet_tf, which wrote it, or a later one"),
        ({"format": 4}, "no released version reads earlier ones. Train its tasks in a new pack"),
        ({"format": "8"}, "Restore it from a backup"),
    ],
)
def test_a_file_of_another_format_says_which_version_reads_it(path, facts, remedy):
    configure(path, lambda config: config["config"]["facts"].update(facts))
    text = refused(path)
    assert text.startswith(f"Cannot read pack '{path}': it has format {facts['format']!r}")
    assert f"packnet_tf {packnet_tf.__version__} reads formats 5 to {FORMAT}" in text
    assert remedy in text


def first_task(config):
    """What the configuration says of the first task."""
    return json.loads(config["config"]["tasks"])[0]


def describe(config, **changes):
    """Changes that."""
    first, *others = json.loads(config["config"]["tasks"])
    config["config"]["tasks"] = json.dumps([{**first, **changes}, *others])


def adopt_second(config):
    """Says that the second task is the pretrained trunk."""
    first, second = json.loads(config["config"]["tasks"])
    config["config"]["tasks"] = json.dumps([first, {**second, "adopted": True}])


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["config"].pop("facts"),
        lambda config: config["config"]["facts"].pop("format"),
        lambda config: config["config"]["facts"].update(committed=1),
        lambda config: config["config"]["facts"].update(committed=0),
        lambda config: config["config"]["facts"].update(biases="own"),
        lambda config: config["config"]["facts"].pop("restart"),
        lambda config: config["config"].update(tasks="[]"),
        lambda config: config["config"].update(tasks="no JSON"),
        lambda config: describe(config, head_weights=7),
        lambda config: describe(config, head_weights=[[[8, 3], "float32"]]),
        lambda config: describe(config, own_places=[99]),
        lambda config: describe(config, name="../x"),
        lambda config: describe(config, name="two"),
        lambda config: describe(config, sees=[]),
        lambda config: describe(config, sees=[2]),
        lambda config: describe(config, sees=[2, 1]),
        lambda config: config["config"].update(trunk=first_task(config)["head"]),
        lambda config: config["config"].update(batches_seen=math.nan),
        lambda config: config["config"].update(phase=3),
        lambda config: config["config"]["facts"].update(notes={"a": 1}),
        lambda config: config["config"]["facts"].update(shared_digest="0" * 64),
        lambda config: config["config"]["facts"].update(unowned_digest="0" * 64),
        lambda config: describe(config, classes=5),
        lambda config: describe(config, claim_ratio=-5),
        lambda config: describe(config, claim_ratio=math.nan),
        lambda config: describe(config, claim_ratio=True),
        lambda config: describe(config, results={"test": "good"}),
        lambda config: describe(config, head_weights=[[[10, 3], "complex64"], [[3], "float32"]]),
        lambda config: describe(config, own_places=[1, 0]),
        lambda config: describe(config, overlay=-0.5),
        lambda config: describe(config, overlay_bytes=-1),
        lambda config: describe(config, adopted=1),
        lambda config: describe(config, statistics="none"),
        lambda config: describe(config, classes=["a", "b"]),
        lambda config: describe(config, head={}),
        lambda config: adopt_second(config),
        lambda config: config["config"]["facts"].update(committed=3),
        lambda config: config["config"]["facts"].update(weight_digests=["0" * 64] * 3),
        lambda config: describe(config, values_digest="0" * 64),
    ],
    ids=[
        "no_facts", "no_format", "one_committed", "none_committed", "policy", "no_restart",
        "tasks_missing", "no_json", "head_weights", "a_head_weight_missing", "own_places", "name",
        "name_taken", "sees_none", "sees_a_later_one", "sees_out_of_order", "trunk",
        "batches_seen", "phase", "notes", "shared", "unowned", "classes", "claim_ratio",
        "claim_ratio_nan", "claim_ratio_bool", "results", "complex", "own_places_descending",
        "overlay", "overlay_bytes", "adopted", "statistics", "class_count", "no_head",
        "second_adopted", "three_committed", "weights", "values",
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_is_refused(path, change):
    configure(path, change)
    refused(path)


@pytest.mark.parametrize("content", [b"", b"not JSON", b"[]", b"{}", b'{"class_name": 3}'])
def test_a_configuration_that_is_none_is_refused(path, content):
    rewrite(path, "config.json", lambda old: content)
    refused(path)


def test_weights_that_do_not_fit_are_refused(path, tmp_path):
    other = tmp_path / "other.keras"
    packed(mlp_trunk(), one=0.5, two=0.5).save(other)
    with zipfile.ZipFile(other) as file:
        weights = file.read("model.weights.h5")
    rewrite(path, "model.weights.h5", lambda old: weights)
    refused(path)
    rewrite(path, "model.weights.h5", lambda old: b"no HDF5 file")
    refused(path)


@pytest.mark.parametrize("place", ["head", "trunk"])
def test_code_in_a_file_is_not_executed(path, place, tmp_path):
    witness = str(tmp_path / "executed")
    code = layers.Lambda(lambda x, w=witness: (open(w, "w").close(), x)[1], name="relu1")
    evil = keras.saving.serialize_keras_object(code)

    def plant(config):
        if place == "head":
            return describe(config, head=evil)
        for layer in config["config"]["trunk"]["config"]["layers"]:
            if layer["name"] == "relu1":
                layer.update(module=evil["module"], class_name="Lambda", config=evil["config"])

    configure(path, plant)
    text = refused(path)
    assert text.startswith(f"Cannot read pack '{path}': ")
    assert "lambda" in text.lower()
    assert not os.path.exists(witness)


def test_a_head_that_cannot_be_made_is_named_when_it_is_asked_for(path):
    """Heads of Keras's own layers are made when needed: the other tasks can be used."""
    net = packnet_tf.load(path)

    def spoil(config):
        head = first_task(config)["head"]
        head["config"]["units"] = -3
        describe(config, head=head)

    configure(path, spoil)
    loaded = packnet_tf.load(path)
    x, _ = data(conv_trunk())
    assert np.array_equal(logits(loaded.task_model("two"), x), logits(net.task_model("two"), x))
    with pytest.raises(
        ValueError, match=r"(?s)A head cannot be made .* restore the pack from a backup.*units=-3"
    ):
        loaded.task_model("one")


def test_a_head_that_does_not_fit_its_values_is_refused_when_it_is_asked_for(path):

    def widen(config):
        head = first_task(config)["head"]
        head["config"]["units"] = 7
        describe(config, head=head)

    configure(path, widen)
    with pytest.raises(ValueError) as error:
        packnet_tf.load(path).task_model("one")
    assert str(error.value) == (
        "The head of task 'one' has the weights [([10, 7], 'float32'), ([7], 'float32')], and the "
        "pack holds values for [[[10, 3], 'float32'], [[3], 'float32']]. Restore the pack from a "
        "backup."
    )


def test_a_file_holds_no_pickle(path):
    with zipfile.ZipFile(path) as file:
        assert set(file.namelist()) == {"metadata.json", "config.json", "model.weights.h5"}
        json.loads(file.read("config.json"))
        assert file.read("model.weights.h5")[:8] == b"\x89HDF\r\n\x1a\n"


# -- Whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["write", "flush", "rename"])
def test_a_crash_while_saving_leaves_the_old_file_whole(path, step, monkeypatch):
    net = packnet_tf.load(path)
    before = path.read_bytes()
    pack_task(net, "three")

    def half(model, filepath, *args, **kwargs):
        with open(filepath, "wb") as file:
            file.write(before[: len(before) // 2])
        raise OSError("disk full")

    def fail(*args):
        raise OSError("disk full")

    if step == "write":
        monkeypatch.setattr(keras.saving, "save_model", half)
    else:
        monkeypatch.setattr(os, {"flush": "fsync", "rename": "replace"}[step], fail)
    with pytest.raises(OSError, match="disk full"):
        net.save(path)
    monkeypatch.undo()
    assert os.listdir(path.parent) == ["pack.keras"]
    assert path.read_bytes() == before
    assert packnet_tf.load(path).tasks == ("one", "two")
    net.save(path)
    assert packnet_tf.load(path).tasks == ("one", "two", "three")


@pytest.mark.parametrize("name", ["pack.h5", "pack", "pack.keras.zip", "pack.KERAS "])
def test_a_wrong_suffix_is_refused(name, tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        net.save(tmp_path / name)
    assert str(error.value) == (
        f"A pack is saved as a .keras file; got '{tmp_path / name}'. Write 'pack.keras'."
    )
    assert os.listdir(tmp_path) == []


def test_saving_makes_the_folder(tmp_path):
    packnet_tf.PackNet(mlp_trunk()).save(tmp_path / "new" / "folder" / "pack.keras")
    assert packnet_tf.load(tmp_path / "new" / "folder" / "pack.keras").tasks == ()


def test_a_pack_can_be_read_as_often_as_wanted(path):
    net = packnet_tf.load(path)
    x, _ = data(conv_trunk())
    first, second = packnet_tf.load(path), packnet_tf.load(path)
    pack_task(first, "three")
    assert second.tasks == ("one", "two")
    assert np.array_equal(logits(second.task_model("two"), x), logits(net.task_model("two"), x))
    assert not np.any(ops.convert_to_numpy(next(iter(second.state.weights.values())).owner) == 3)


def test_a_member_that_is_declared_compressed_but_is_not_is_refused(path):
    """One flipped bit: the directory of the archive says deflate of what is stored."""
    content = bytearray(path.read_bytes())
    for name in ("model.weights.h5", "config.json"):
        # A record of the directory: a signature, the method 10 bytes on, the name 46 bytes on.
        place = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
        damaged = bytearray(content)
        damaged[place + 10] ^= 8
        path.write_bytes(damaged)
        assert "is damaged or not a .keras file" in refused(path)
