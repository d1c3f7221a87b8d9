"""Promise 7: a file is either the old one or the new one."""

import errno
import os
import pathlib
import resource
import signal
import stat
import subprocess
import sys

import pytest

from packnet_tf.backend import atomic
from packnet_tf.backend.atomic import replacing


def test_a_new_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


def test_the_old_file_is_there_until_the_new_one_takes_its_place(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("old", ["old", None])
def test_a_crash_in_the_middle_leaves_the_old_file(tmp_path, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)

    def crash():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert os.listdir(tmp_path) == (["file.txt"] if old else [])
    assert not old or path.read_text() == old


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failure_of_the_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, step, fail)
    with pytest.raises(OSError, match="disk full"), replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_the_file_is_flushed_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda fd: (done.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(
        atomic.os, "replace", lambda *paths: (done.append("replace"), replace(*paths))[1]
    )
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert done == ["fsync", "replace", "fsync"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "usual.txt").write_text("")
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("")
    usual = stat.S_IMODE((tmp_path / "usual.txt").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == usual


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="Cannot write") as error, replacing(path):
        raise full
    assert str(error.value) == (
        f"Cannot write '{path}': No space left on device. Make room there and try again; what it "
        "held before is unchanged."
    )
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
    assert error.value.errno == errno.ENOSPC
    elsewhere = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/file")
    with pytest.raises(OSError, match="'/elsewhere/file'") as error, replacing(path):
        raise elsewhere
    assert error.value is elsewhere


def test_a_folder_that_cannot_be_written_to_is_said_with_the_name_of_the_file(
    tmp_path, monkeypatch
):
    def refuse(path, *_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    monkeypatch.setattr(atomic.os, "open", refuse)
    with (
        pytest.raises(OSError, match="Read-only file system") as error,
        replacing(tmp_path / "file.txt"),
    ):
        raise AssertionError
    assert str(error.value).startswith(f"Cannot write '{tmp_path / 'file.txt'}': ")
    assert error.value.errno == errno.EROFS


def test_a_file_keeps_its_permissions_and_the_umask_is_not_touched(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("old")
    path.chmod(0o600)
    monkeypatch.delattr(atomic.os, "umask")
    with replacing(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "data").mkdir()
    path, link = tmp_path / "data" / "file.txt", tmp_path / "link.txt"
    link.symlink_to(path)
    for text in ("first", "second"):
        with replacing(link) as temporary:
            temporary.write_text(text)
        assert (link.is_symlink(), path.read_text()) == (True, text)
    assert os.listdir(tmp_path / "data") == ["file.txt"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = (
        "import os, sys; from packnet_tf.backend.atomic import own_prefix, replacing\n"
        "os.mkdir(os.path.join(os.path.dirname(sys.argv[1]), own_prefix() + 'folder'))\n"
        "with replacing(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "file.txt"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    mine = tmp_path / f"{atomic.own_prefix()}alive"
    mine.touch()
    other = tmp_path / ".writing-0123abcd-1-file.txt"  # perhaps of another computer
    other.touch()
    assert len(os.listdir(tmp_path)) == 4
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert {*tmp_path.iterdir()} == {path, mine, other}


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / f"{'n' * 249}.keras"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    too_long = tmp_path / f"{'n' * 250}.keras"
    with pytest.raises(OSError, match="File name too long") as refused, replacing(too_long):
        pass
    assert str(refused.value).startswith(f"Cannot write '{too_long}': ")
    assert str(refused.value).endswith("Write a shorter name.")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("absolute", [True, False])
def test_what_is_in_the_way_is_said_in_a_sentence(tmp_path, monkeypatch, absolute):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path if absolute else pathlib.Path()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, remedy in (("folder", "A folder has that name"), ("file/x", "A part of its path")):
        with (
            pytest.raises(OSError, match=remedy) as error,
            replacing(folder / name) as temporary,
        ):
            temporary.write_text("new")
        assert str(error.value).startswith(f"Cannot write '{folder / name}': ")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_disk_that_fills_up_while_writing_is_said_in_a_sentence(tmp_path, monkeypatch, absolute):
    monkeypatch.chdir(tmp_path)
    path = (tmp_path if absolute else pathlib.Path()) / "file.txt"
    path.write_text("old")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="Make room there") as error, replacing(path) as temporary:
            temporary.write_bytes(b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).startswith(f"Cannot write '{path}': ")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
