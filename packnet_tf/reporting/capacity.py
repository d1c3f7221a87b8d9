"""`Capacity`: how many weights each task owns."""

from collections.abc import Mapping

from packnet_tf.reporting.tables import AsTable, Table


class Capacity(AsTable, dict):
    """The numbers of owned and free weights per layer; prints as a table.

    It is a dict from a layer's path (with the weight's name, if the layer packs several) to
    `{"total": int, "free": int, "claimed": int, "owned": {task: int}}`. Free and owned weights
    add up to the total. Weights that an open task claims are free until the commit, or, if it has
    an overlay, are counted as those of their owners. If committed tasks have overlays, entries also
    have `"overlaid": {task: int}`, the weights that each of them overrides, whoever owns them; the
    table shows their share with a plus sign.

    Attributes:
        tasks: names of the committed tasks, in the order they were packed.

    Example:
        >>> print(net.capacity())
        >>> net.capacity().free
        0.5
    """

    def __init__(self, layers: Mapping[str, dict], tasks: tuple[str, ...]):
        super().__init__(layers)
        self.tasks = tasks

    def sum(self) -> dict:
        """Returns the sum over all layers, in the form of a layer's entry."""
        entries = list(self.values())
        by_task = [key for key in ("owned", "overlaid") if any(key in entry for entry in entries)]
        return {
            **{key: sum(entry[key] for entry in entries) for key in ("total", "free", "claimed")},
            **{
                key: {task: sum(entry[key][task] for entry in entries) for task in entries[0][key]}
                for key in by_task
            },
        }

    @property
    def free(self) -> float:
        """The capacity: the fraction of all packed weights that is free, 0 to 1."""
        whole = self.sum()
        return whole["free"] / whole["total"]

    def to_dict(self) -> dict:
        """Returns plain dicts, lists and numbers for `json.dumps`."""
        return {"tasks": list(self.tasks), "layers": dict(self), "sum": self.sum()}

    def _table(self) -> Table:
        rows = [[name, *_shares(entry)] for name, entry in self.items()]
        rows.append(["all", *_shares(self.sum())])
        return Table(["layer", "weights", *self.tasks, "free"], rows, total=1)


def _shares(entry: dict) -> list[str]:
    total = entry["total"]
    owned = {task: f"{count / total:.1%}" for task, count in entry["owned"].items()}
    extra = {task: f"+{count / total:.1%}" for task, count in entry.get("overlaid", {}).items()}
    return [f"{total:,}", *(owned | extra).values(), f"{entry['free'] / total:.1%}"]
