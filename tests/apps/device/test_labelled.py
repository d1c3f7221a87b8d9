"""Folders of labelled images, by task."""

import pytest

from packnet_tf.apps.cli import UsageError
from packnet_tf.apps.device.labelled import folders_by_task

TASKS = ["leaves", "flowers"]


def test_a_folder_belongs_to_its_task_and_may_have_a_colon():
    given = ["flowers:a:b", "leaves:c"]
    assert folders_by_task("--data", given, TASKS) == {"flowers": "a:b", "leaves": "c"}
    assert folders_by_task("--data", ["photos"], ["leaves"]) == {"leaves": "photos"}
    assert folders_by_task("--data", [], []) == {}


@pytest.mark.parametrize(
    ("given", "tasks", "said"),
    [
        (["a"], [], "--data=a: there is no task that gives classes"),
        (["a"], TASKS, "which of the tasks 'leaves', 'flowers' it is for. Write --data=TASK:a"),
        (["a", "leaves:b"], ["leaves"], "--data=a does not say which"),
        (
            ["cats:a"],
            TASKS,
            "--data names the task 'cats'; the tasks that give classes are 'leaves', 'flowers'",
        ),
        (["leaves:"], TASKS, "--data=leaves: names no folder. Write --data=leaves:FOLDER"),
        (["leaves:a", "leaves:b"], TASKS, "two folders for the task 'leaves', 'a' and 'b'"),
    ],
)
def test_what_names_no_task_or_no_folder_is_refused(given, tasks, said):
    with pytest.raises(UsageError) as error:
        folders_by_task("--data", given, tasks)
    assert said in str(error.value)
