"""Splits TinyImageNet into tasks by its classes: folders of links to its images.

  python examples/streams/tiny_imagenet.py tiny-imagenet-200 TASKS
  python examples/streams/tiny_imagenet.py tiny-imagenet-200 TASKS --count=20

`tiny-imagenet-200` is the folder of the archive: `train/<class>/images/`, `val/images/` and
`val/val_annotations.txt`. TASKS gets `task_01/{train,test}/<class>/<image>`, by default ten tasks
of twenty classes, in the order of their WordNet numbers. Test images are those of `val`, since the
archive's `test` has no labels. `packnet train` and `packnet compare` take validation images from
the training images.
"""

import argparse
import pathlib
import sys

from stream_files import check_target

CLASSES = 200


def labels_of(annotations: pathlib.Path) -> dict[str, str]:
    """Reads the class of every image of `val`, by the name of its file.

    Raises:
        ValueError: a line has no name and class.
    """
    found = {}
    for line in annotations.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if len(fields) < 2:
            raise ValueError(f"'{annotations}' has the line {line!r}; expected FILE, CLASS, ....")
        found[fields[0]] = fields[1]
    return found


def split(source: pathlib.Path, target: pathlib.Path, count: int = 10) -> list[str]:
    """Writes the folders of links; returns the names of the tasks.

    Raises:
        FileNotFoundError: a folder or a file of the archive is missing.
        ValueError: the classes do not divide into as many tasks, or the folder has others.
    """
    classes = sorted(path.name for path in (source / "train").iterdir() if path.is_dir())
    if not classes or count < 1 or len(classes) % count:
        raise ValueError(
            f"'{source / 'train'}' has {len(classes)} classes, which {count} tasks cannot share "
            f"equally; expected {CLASSES}."
        )
    size = len(classes) // count
    tasks = {name: f"task_{place // size + 1:02}" for place, name in enumerate(classes)}
    check_target(target, {t: [n for n in classes if tasks[n] == t] for t in tasks.values()})
    labels = labels_of(source / "val" / "val_annotations.txt")
    for name, task in tasks.items():
        for image in sorted((source / "train" / name / "images").iterdir()):
            _link(target / task / "train" / name / image.name, image)
    for image in sorted((source / "val" / "images").iterdir()):
        name = labels[image.name]
        _link(target / tasks[name] / "test" / name / image.name, image)
    return list(dict.fromkeys(tasks.values()))


def _link(link: pathlib.Path, image: pathlib.Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(image.resolve())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Splits TinyImageNet into tasks by its classes.")
    parser.add_argument("source", type=pathlib.Path, help="the folder tiny-imagenet-200")
    parser.add_argument("target", type=pathlib.Path, help="folder for the tasks")
    parser.add_argument("--count", type=int, default=10, help="how many tasks; default 10")
    given = parser.parse_args(arguments)
    try:
        tasks = split(given.source, given.target, given.count)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"An image or a class of 'val' is unknown: {error}.", file=sys.stderr)
        return 1
    print(f"{len(tasks)} tasks in {given.target}: {', '.join(tasks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
