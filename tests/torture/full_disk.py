"""Writes on a disk that becomes full: a limit on the size of files, or a small file system.

The limit (`RLIMIT_FSIZE`) needs no rights; the file system, a `tmpfs`, needs those of root.
"""

import contextlib
import os
import pathlib
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator

import packnet_tf
from packnet_tf.export import export_all, export_bundle
from torture import subjects
from torture.outcome import ALIEN, REFUSED, WHOLE, Fault, refused

WRITERS = ("save", "save", "save", "save", "files", "bundle")


def attack(seed: int, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Writes a new pack, or its export, over an old one, where there is too little room."""
    rng = random.Random(seed)
    what = rng.choice(WRITERS)
    net = packnet_tf.load(originals / subjects.NEW)
    with _small(folder / "disk", rng) as (disk, full):
        states = _put(what, disk, originals)
        try:
            with full:
                _write(what, net, disk)
            outcome = WHOLE
        except Exception as error:
            outcome = refused(error, disk, disk / "pack.keras")
        _look(what, disk, states if outcome == WHOLE else states[:1])
        subjects.left_behind(disk)
    return outcome


@contextlib.contextmanager
def _small(
    path: pathlib.Path, rng: random.Random
) -> Iterator[tuple[pathlib.Path, contextlib.AbstractContextManager]]:
    """Yields a folder, and what makes its disk full."""
    path.mkdir()
    if rng.random() < 0.5 and _mounted(path):
        try:
            yield path, _filled(path, rng)
        finally:
            subprocess.run(["umount", path], check=True)
    else:
        yield path, _limited(rng)


def _mounted(path: pathlib.Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "torture", path]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def _filled(path: pathlib.Path, rng: random.Random) -> Iterator[None]:
    """Leaves a few kB on a file system."""
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    filler = path / "filler"
    filler.write_bytes(bytes(max(0, free - 4096 * rng.randint(0, 12))))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def _limited(rng: random.Random) -> Iterator[None]:
    """Lets no file grow beyond some kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (rng.randint(0, 60_000), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _put(what: str, disk: pathlib.Path, originals: pathlib.Path) -> list[subjects.Answers]:
    names = subjects.OLD, subjects.NEW
    if what == "save":
        shutil.copy(originals / subjects.OLD, disk / "pack.keras")
        return subjects.known(originals, *names)
    shutil.copytree(originals / f"{subjects.OLD}.{what}", disk / what)
    return subjects.known(originals, *(f"{name}.{what}" for name in names))


def _write(what: str, net: packnet_tf.PackNet, disk: pathlib.Path) -> None:
    if what == "save":
        net.save(disk / "pack.keras")
    elif what == "files":
        export_all(net, disk / what, verbose=False)
    else:
        export_bundle(net, disk / what, verbose=False)


def _look(what: str, disk: pathlib.Path, states: list[subjects.Answers]) -> None:
    if what == "save":
        found = subjects.look(disk / "pack.keras", *states)
    else:
        found = subjects.look_at_files(disk / what, *states)
    if found == REFUSED:
        raise Fault(ALIEN, f"a full disk has damaged what was there before '{what}'")
