"""Several processes that write one file: none undoes what another has done."""

import copy
import errno
import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import packnet_tf
from helpers.image_folders import small_pack, write_task
from helpers.interrupting import interrupt
from helpers.pack_helpers import mlp_trunk, pack_task
from packnet_tf.apps.main import main
from packnet_tf.backend import writers
from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.writers import locked
from packnet_tf.tasks import storage, stored_pack

HOLD = """
import sys, time
from packnet_tf.backend.writers import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder():
    """A function that makes another process hold a file for some seconds."""
    started = []

    def hold(path, seconds=60):
        command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield hold
    for process in started:
        process.kill()
        process.wait()


def test_a_file_that_another_process_holds_is_refused_by_name(holder, tmp_path):
    path = tmp_path / "pack.keras"
    other = holder(path)
    with pytest.raises(BlockingIOError) as refused, locked(path):
        pass
    assert str(refused.value).startswith(f"'{path}' is in use by another process ({other.pid})")
    with locked(tmp_path / "another.keras"):
        pass


def test_death_releases_a_file_and_leaves_nothing_in_the_way(holder, tmp_path):
    path = tmp_path / "pack.keras"
    other = holder(path)
    other.kill()
    other.wait()
    with locked(path), locked(path):  # a function that holds it may call another that does
        assert [entry.name for entry in tmp_path.iterdir()] == [".pack.keras.lock"]
    assert list(tmp_path.iterdir()) == []


def test_one_may_wait_for_another_process(holder, tmp_path):
    holder(tmp_path / "pack.keras", 1.0)
    began = time.monotonic()
    with locked(tmp_path / "pack.keras", wait=30):
        assert time.monotonic() - began < 25


def test_a_folder_that_cannot_be_locked_is_no_obstacle(tmp_path):
    with locked(tmp_path / "missing" / "pack.keras"):
        assert not (tmp_path / "missing").exists()


def test_a_change_by_another_pack_is_not_undone(tmp_path):
    path = tmp_path / "pack.keras"
    net = packnet_tf.PackNet(mlp_trunk())
    pack_task(net, "one")
    net.save(path)
    ours, theirs = packnet_tf.load(path), packnet_tf.load(path)
    pack_task(ours, "ours")
    pack_task(theirs, "theirs")
    theirs.save(path)
    before = path.read_bytes()
    for late in (ours, net):
        with pytest.raises(RuntimeError) as refused:
            late.save(path)
        assert str(refused.value).startswith(f"'{path}' was changed by another program")
        assert "It has the task 'theirs', which this pack lacks." in str(refused.value)
    assert path.read_bytes() == before
    ours.save(tmp_path / "ours.keras")
    net.restore(path)  # it is a later state of this pack
    pack_task(net, "two")
    net.save(path)
    assert packnet_tf.load(path).tasks == ("one", "theirs", "two")


def test_a_pack_may_be_saved_again_and_over_files_that_it_never_read(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    for name in ("a.keras", "b.keras", "a.keras"):
        net.save(tmp_path / name)
        pack_task(net, f"{name[0]}{len(net.tasks)}")
    other = copy.deepcopy(net)
    other.save(tmp_path / "a.keras")
    (tmp_path / "b.keras").unlink()
    net.save(tmp_path / "b.keras")
    assert packnet_tf.load(tmp_path / "b.keras").tasks == net.tasks


def test_saving_waits_for_a_process_that_uses_the_file(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_pack, "WAIT", 0.1)
    net = packnet_tf.PackNet(mlp_trunk())
    holder(tmp_path / "pack.keras")
    with pytest.raises(BlockingIOError, match="is in use by another process"):
        net.save(tmp_path / "pack.keras")


def test_two_commands_do_not_train_one_pack(holder, tmp_path, capsys):
    write_task(tmp_path / "shades")
    pack = tmp_path / "pack.keras"
    small_pack({"tones": ["dark", "light"]}).save(pack)
    holder(pack)
    flags = ["--task=shades", f"--data={tmp_path / 'shades'}", "--epochs=1"]
    assert main(["train", str(pack), *flags]) == 1
    assert f"'{pack}' is in use by another process" in capsys.readouterr().err
    assert not pathlib.Path(f"{pack}.progress").exists()


def test_two_runs_do_not_work_in_one_directory(holder, tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    trainer = packnet_tf.PackTrainer(net, directory=tmp_path / "run", verbose=False)
    (tmp_path / "run").mkdir()
    holder(tmp_path / "run" / "pack.keras")
    with pytest.raises(BlockingIOError, match="is in use by another process"):
        trainer.fit([])


def test_a_change_while_a_pack_is_read_is_not_undone(tmp_path, monkeypatch):
    path = tmp_path / "pack.keras"
    net = packnet_tf.PackNet(mlp_trunk())
    net.save(path)
    other, read = packnet_tf.load(path), storage.read
    pack_task(other, "theirs")

    def read_slowly(path):
        found = read(path)
        other.save(path)
        return found

    monkeypatch.setattr(storage, "read", read_slowly)
    late = packnet_tf.load(path)
    pack_task(other, "more")
    net.restore(path)
    monkeypatch.undo()
    for stale in (late, net):
        with pytest.raises(RuntimeError, match="which this pack lacks"):
            stale.save(path)


def test_a_file_of_the_same_size_and_time_is_another_file(tmp_path):
    path, owner = tmp_path / "file", packnet_tf.PackNet(mlp_trunk())
    path.write_text("old")
    writers.mark_current(owner, path, writers.stamp(path))
    assert writers.is_current(owner, path)
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    (tmp_path / "new").write_text("new")
    os.utime(tmp_path / "new", ns=times)
    os.replace(tmp_path / "new", path)
    assert writers.is_changed(owner, path)
    path.unlink()
    assert not writers.is_changed(owner, path)


class Owner:
    """Something that is saved in a file."""


def test_after_ctrl_c_at_any_point_of_a_save_nothing_is_in_the_way_of_the_next_one(tmp_path):
    path, owner = tmp_path / "file", Owner()

    def save():
        with locked(path):
            assert not writers.is_changed(owner, path)
            with replacing(path) as temporary:
                temporary.write_text(str(len(places)))
                writers.announce(owner, path, temporary)
            writers.mark_current(owner, path, writers.stamp(path))

    counted, places = [], []
    save()
    interrupt(save, None, counted)
    for at in range(counted[0]):
        places.append(interrupt(save, at))
        assert os.listdir(tmp_path) == ["file"], places[-1]
        assert not writers.is_changed(owner, path), places[-1]
        with ThreadPoolExecutor(1) as pool:  # another thread does not wait for this one
            pool.submit(save).result()
    assert {place.partition(":")[0] for place in places} == {"atomic.py", "writers.py"}
    assert len(places) > 100


def test_threads_keep_each_other_out(tmp_path):
    path = tmp_path / "pack.keras"

    def enter():
        with locked(path):
            return True

    with ThreadPoolExecutor(1) as pool, locked(path):
        entering = pool.submit(enter)
        assert isinstance(entering.exception(), BlockingIOError)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result()


def test_a_full_disk_leaves_no_lock_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writers.os, "write", full)
    with locked(tmp_path / "pack.keras"):
        pass
    assert list(tmp_path.iterdir()) == []
