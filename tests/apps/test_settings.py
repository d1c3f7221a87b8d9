"""One declaration of settings: the flags, the checks of a file, and what two commands share."""

import dataclasses
import subprocess
import sys

import pytest
from absl import flags

from packnet_tf.apps.commands import train
from packnet_tf.apps.packs.plan import Learning, Plan
from packnet_tf.apps.research.settings import Settings
from packnet_tf.apps.settings import check, define_flags, like, setting


@dataclasses.dataclass
class Baking:
    oven: str = setting(dataclasses.MISSING, "Which oven.")
    minutes: int = setting(30, "How long.", least=1, most=90)
    heat: float | None = setting(None, "How hot.", least=0)
    fan: bool = setting(True, "Whether air moves.")
    rack: str = setting("middle", "Where.", choices=("top", "middle"))
    cakes: tuple[str, ...] = setting((), "What.")


def parsed(*arguments):
    values = flags.FlagValues()
    define_flags(Baking, values)
    values(["bake", *arguments])
    return values


def test_every_field_is_a_flag_with_its_default_and_its_help():
    values = parsed()
    assert values.flag_values_dict() == {
        "oven": None, "minutes": 30, "heat": None, "fan": True, "rack": "middle", "cakes": [],
    }  # fmt: skip
    assert values["minutes"].help == "How long."
    given = parsed(
        "--oven=big", "--minutes=90", "--heat=1e2", "--nofan", "--rack=top", "--cakes=a,b"
    )
    assert given.flag_values_dict() == {
        "oven": "big", "minutes": 90, "heat": 100.0, "fan": False, "rack": "top",
        "cakes": ["a", "b"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "argument", ["--minutes=0", "--minutes=91", "--minutes=2.5", "--heat=-1", "--rack=low"]
)
def test_a_flag_takes_what_its_field_takes(argument):
    with pytest.raises(flags.IllegalFlagValueError, match=argument):
        parsed(argument)


def test_a_file_may_write_a_number_in_any_form_and_null_where_there_is_none():
    checked = check({"heat": "1e2", "minutes": 90, "cakes": ("a",)}, "here", Baking)
    assert checked == {"heat": 100.0, "minutes": 90, "cakes": ("a",)}
    assert isinstance(check({"heat": 2}, "here", Baking)["heat"], float)
    assert check({"heat": None}, "here", Baking) == {"heat": None}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"minutes": 91}, "here has minutes: 91; expected a number from 1 to 90."),
        ({"minutes": True}, "here has minutes: True; expected int."),
        ({"minutes": None}, "here has minutes: None; expected int."),
        ({"heat": "hot"}, "here has heat: 'hot'; expected float or null."),
        ({"heat": float("nan")}, "here has heat: nan; expected a number from 0 up."),
        ({"rack": None}, "here has rack: None; write one of top, middle."),
        ({"hat": 1}, "here has 'hat'. Did you mean 'heat'? It takes: oven, minutes, heat, fan, "),
        (["heat"], "here is ['heat']; expected names and values, for instance epochs: 12."),
    ],
)
def test_a_file_is_told_what_is_expected(values, text):
    with pytest.raises(ValueError) as error:
        check(values, "here", Baking)
    assert str(error.value).startswith(text)


def test_a_field_like_another_differs_in_what_is_said_alone():
    @dataclasses.dataclass
    class Roasting:
        hours: int = like(Baking, "minutes", default=2, most=9)

    assert Roasting().hours == 2
    assert check({"hours": 9}, "here", Roasting) == {"hours": 9}
    with pytest.raises(ValueError, match="from 1 to 9"):
        check({"hours": 0}, "here", Roasting)


def test_what_train_and_compare_have_in_common_has_one_default():
    own = {"prune_epoch"}
    for name in Learning.__dataclass_fields__.keys() - own:
        assert train.FLAGS[name].default == getattr(Settings(), name)
    assert Plan(pack="p.keras").prune_epoch == Settings().prune_epoch


def test_the_prune_is_after_two_thirds_of_the_epochs_and_never_at_their_end():
    turns = [Plan(pack="p.keras", epochs=epochs).prune_epoch for epochs in (1, 2, 3, 9, 15)]
    assert turns == [0, 1, 2, 6, 10]
    assert Plan(pack="p.keras", epochs=9, prune_epoch=0).prune_epoch == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pack": "p"}, "write --pack=p.keras."),
        ({"epochs": 3, "prune_epoch": 3}, "--prune_epoch=3 is not below --epochs=3"),
        ({"prune": "half"}, "--prune=half is none of the ways to prune"),
        ({"prune": "0.5,0"}, "--prune has 2 ratios for 1 tasks"),
        ({"prune": "1.5"}, "a number from 0 to 1; got 1.5"),
        (
            {"prune": "equal_shares", "prune_ratio": 0.5},
            "--prune_ratio=0.5 and --prune=equal_shares both say how much to prune. Leave out "
            "--prune to release 0.5 of each task's claim, or --prune_ratio to prune as --prune ",
        ),
        ({"prune": "auto", "prune_ratio": 0.5}, "--prune_ratio=0.5 and --prune=auto both say"),
        ({"prune": "0.25", "prune_ratio": 0.5}, "--prune_ratio=0.5 and --prune=0.25 both say"),
    ],
)
def test_a_plan_made_in_python_is_checked_as_one_of_flags(changes, text):
    with pytest.raises(ValueError) as error:
        Plan(**{"pack": "p.keras", **changes})
    assert text in str(error.value)


def test_ratios_are_those_that_prune_lists():
    tasks = (("a", "x"), ("b", "y"))
    assert Plan(pack="p.keras", tasks=tasks, prune="0.5,0").ratios() == [0.5, 0.0]
    assert Plan(pack="p.keras", prune="auto").ratios() is None


def test_settings_are_read_without_keras():
    code = (
        "import packnet_tf.apps.commands.train, packnet_tf.apps.research.config, sys;"
        "sys.exit('keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
