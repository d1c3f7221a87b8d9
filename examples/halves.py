"""Splits the tasks of a folder by their classes into two each: twelve tasks from six.

  python examples/halves.py DATA HALVES

DATA holds folders {train,validation,test}/<class>; HALVES gets `<task>_1` with every other class,
and `<task>_2` with the rest, as links to them. Files beside the folders are linked too.
"""

import pathlib
import sys

SPLITS = ("train", "validation", "test")


def split(data: pathlib.Path, halves: pathlib.Path) -> None:
    """Writes the halves of every task of `data` to `halves`."""
    halves.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.iterdir()):
        if path.suffix == ".keras":
            _link(halves / path.name, path)
        if not (path / "train").is_dir():
            continue
        classes = sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir())
        for number in (1, 2):
            half = halves / f"{path.name}_{number}"
            for inner in (
                f"{folder}/{name}" for folder in SPLITS for name in classes[number - 1 :: 2]
            ):
                if (path / inner).is_dir():
                    _link(half / inner, path / inner)


def _link(link: pathlib.Path, target: pathlib.Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(target.resolve(), target.is_dir())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    split(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
