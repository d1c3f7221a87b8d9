"""Promise 7: a file is either the old one or the new one."""

import errno
import os
import stat

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
    def refuse(prefix, suffix, dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{dir}/{prefix}x{suffix}")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with (
        pytest.raises(OSError, match="Read-only file system") as error,
        replacing(tmp_path / "file.txt"),
    ):
        raise AssertionError
    assert error.value.filename == str(tmp_path / "file.txt")
