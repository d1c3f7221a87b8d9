"""Where `packnet train` keeps what a command that was interrupted has done."""

import json
import pathlib
import shutil
from collections.abc import Mapping

from packnet_tf.backend.atomic import replacing
from packnet_tf.trainer.history import History
from packnet_tf.trainer.run import HISTORY, PACK

# What may differ in the command that goes on: one that diverged does at another rate.
FREE = ("pack", "fresh", "learning_rate", "retrain_learning_rate")


class ProgressFolder:
    """The folder beside a pack where a command that was interrupted is kept.

    Args:
        pack: path of the pack.
        settings: of the command, by the names of its flags; numbers and texts.
        fresh: whether to forget what is there.

    Raises:
        ValueError: the interrupted command had other settings.
    """

    def __init__(self, pack: str, settings: Mapping, fresh: bool):
        self.folder = pathlib.Path(f"{pack}.progress")
        self.pack = self.folder / PACK
        plain = json.loads(json.dumps(settings))  # as they will be read back
        self._settings = {**plain, **dict.fromkeys(FREE)}
        self._note = self.folder / "settings.json"
        self._chosen = self.folder / "statistics.json"
        if fresh:
            self.done()
        if self._note.exists():
            before = json.loads(self._note.read_text(encoding="utf-8"))
            changed = [
                n for n, value in self._settings.items() if n in before and value != before[n]
            ]
            if changed:
                name = changed[0]
                raise ValueError(
                    f"An interrupted run had --{name}={before.get(name)}, this one has "
                    f"--{name}={self._settings[name]}. Repeat the old command to continue it, or "
                    "add --fresh to start over."
                )
            print(f"Continuing the interrupted run in '{self.folder}'.", flush=True)

    def continue_with(self, net) -> None:
        """Puts into the pack what the interrupted run has packed."""
        if self.pack.exists():
            net.restore(self.pack)

    def chosen(self, task: str) -> str | None:
        """The statistics that an interrupted run has chosen for a task; None: it has not."""
        return self._choices().get(task)

    def choose(self, task: str, statistics: str) -> None:
        """Notes the statistics of a task."""
        with replacing(self._chosen) as temporary:
            temporary.write_text(json.dumps({**self._choices(), task: statistics}), "utf-8")

    def _choices(self) -> dict:
        if not self._chosen.exists():
            return {}
        return json.loads(self._chosen.read_text(encoding="utf-8"))

    def history(self) -> History:
        """What the interrupted run has packed."""
        return History.read(self.folder / HISTORY)

    def begin(self) -> None:
        """Notes the settings: from here on there is something to continue."""
        with replacing(self._note) as temporary:
            temporary.write_text(json.dumps(self._settings), encoding="utf-8")

    def done(self) -> None:
        """Removes it: there is nothing to continue."""
        shutil.rmtree(self.folder, ignore_errors=True)
