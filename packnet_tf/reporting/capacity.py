"""`Capacity`: how many weights each task owns."""

from collections.abc import Mapping

from packnet_tf.reporting.tables import AsTable, Table


class Capacity(AsTable, dict):
    """The numbers of owned and free weights per layer; prints as a table.

    It is a dict from a layer's path (with the weight's name, if the layer packs several) to
    `{"total": int, "free": int, "claimed": int, "owned": {task: int}}`. Free and owned weights
    add up to the total. Weights that an open task claims are free until the commit.

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
        return {
            **{key: sum(entry[key] for entry in entries) for key in ("total", "free", "claimed")},
            "owned": {task: sum(entry["owned"][task] for entry in entries) for task in self.tasks},
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
    parts = [*entry["owned"].values(), entry["free"]]
    return [f"{total:,}", *(f"{part / total:.1%}" for part in parts)]
