"""Two processes that add tasks to one pack: neither loses what the other has saved."""

import pathlib
import random
import shutil

import packnet_tf
from helpers.pack_helpers import jolt
from torture import subjects
from torture.outcome import LOST, WHOLE, Fault, refused
from torture.processes import Resident, ended, fork

TASKS = 2  # of each writer


def add(who: str, seed: int, path: pathlib.Path, said: pathlib.Path) -> None:
    """Adds tasks to a pack; notes every one that was saved."""
    for number in range(TASKS):
        name = f"{who}{number}"
        for _ in range(40):  # until no other writer was in between
            net = packnet_tf.load(path)
            jolt(net.add_task(name, subjects.head(), overlay=0.05), seed=seed + number)
            net.prune(0.95)
            net.commit()
            try:
                net.save(path)
            except (RuntimeError, BlockingIOError) as error:
                refused(error, path)
                continue
            with said.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
            break


def drive(seed: int, folder: pathlib.Path, originals: pathlib.Path, resident: Resident) -> str:
    """Lets two processes write; one of them may be killed."""
    rng = random.Random(seed)
    path = folder / "pack.keras"
    shutil.copy(originals / subjects.OLD, path)
    writers = [fork(add, who, seed, path, folder / f"{who}.txt") for who in "ab"]
    if rng.random() < 0.5:
        writers[0].join(1.0 + 3.0 * rng.random())
        writers[0].kill()
        writers[0].join()
    codes = [ended(writer) for writer in writers]
    if codes[1] or codes[0] not in (0, -9):
        raise Fault(LOST, f"the writers ended with {codes}")
    said = [f for f in (folder / "a.txt", folder / "b.txt") if f.exists()]
    names = [name for file in said for name in file.read_text(encoding="utf-8").split()]
    return resident.call("writers", "judge", names, folder, originals)


def judge(names: list[str], folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Checks that the pack has every task that was saved, and the old ones as they were."""
    path = folder / "pack.keras"
    net = packnet_tf.load(path)
    lost = {*names} - {*net.tasks}
    if lost:
        raise Fault(LOST, f"saved, and not in the pack: {sorted(lost)}")
    [old] = subjects.known(originals, subjects.OLD)
    found = subjects.answers(net)
    subjects.compare({task: found[task] for task in old}, old)
    net.save(path)
    subjects.left_behind(folder)
    return WHOLE
