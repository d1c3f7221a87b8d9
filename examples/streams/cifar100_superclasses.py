"""Writes CIFAR-100 as tasks of its superclasses, folders of PNG files.

  python examples/streams/cifar100_superclasses.py cifar-100-python TASKS
  python examples/streams/cifar100_superclasses.py cifar-100-python TASKS --count=10

`cifar-100-python` is the folder of the archive "CIFAR-100 python version": the files `train`,
`test` and `meta`. TASKS gets `<task>/{train,test}/<class>/<number>.png`: by default 20 tasks, one
of five classes for each superclass; with --count=10, two superclasses in a task, in alphabetical
order.
`packnet train` and `packnet compare` take validation images from the training images.
"""

import argparse
import pathlib
import sys

from stream_files import check_target, images_of, read, texts, write

SUPERCLASSES = 20


def task_names(superclasses: list[str], count: int) -> list[str]:
    """Returns the name of every superclass's task.

    Args:
        superclasses: names in alphabetical order.
        count: the number of tasks; it divides the number of superclasses.

    Example:
        >>> task_names(["fish", "flowers", "insects", "people"], 2)
        ['fish_and_flowers', 'fish_and_flowers', 'insects_and_people', 'insects_and_people']
    """
    size = len(superclasses) // count
    names = [
        "_and_".join(superclasses[start : start + size])
        for start in range(0, len(superclasses), size)
    ]
    return [name for name in names for _ in range(size)]


def write_tasks(source: pathlib.Path, target: pathlib.Path, count: int = SUPERCLASSES) -> list[str]:
    """Writes the folders; returns the names of the tasks.

    Raises:
        ValueError: a file is damaged, or the folder has tasks of another split.
    """
    coarse, fine = read(source / "meta", b"coarse_label_names", b"fine_label_names")
    classes, tasks = texts(fine), task_names(texts(coarse), count)
    check_target(target, dict.fromkeys(tasks, classes))
    for split in ("train", "test"):
        data, labels, groups = read(source / split, b"data", b"fine_labels", b"coarse_labels")
        images = zip(images_of(data), labels, groups, strict=True)
        for number, (pixels, label, group) in enumerate(images):
            write(pixels, target / tasks[group] / split / classes[label], number)
    return list(dict.fromkeys(tasks))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Writes CIFAR-100 as tasks of its superclasses.")
    parser.add_argument("source", type=pathlib.Path, help="the folder cifar-100-python")
    parser.add_argument("target", type=pathlib.Path, help="folder for the tasks")
    parser.add_argument("--count", type=int, default=SUPERCLASSES, choices=(10, SUPERCLASSES))
    given = parser.parse_args(arguments)
    try:
        tasks = write_tasks(given.source, given.target, given.count)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(tasks)} tasks in {given.target}: {', '.join(tasks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
