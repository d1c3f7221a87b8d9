"""`packnet plan`."""

import sys

from helpers.image_folders import small_pack
from helpers.pack_helpers import mlp_trunk, packed
from packnet_tf.apps.main import main


def run(capsys, *arguments):
    sys.modules.pop(
        "packnet_tf.apps.commands.plan", None
    )  # its flags keep the values of the last run
    status = main(["plan", *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_plan_prints_each_tasks_share_and_what_is_left(capsys):
    status, out, _ = run(capsys, "--ratios=0.5,0.75,0.75")
    assert status == 0
    rows = [line.split() for line in out.splitlines()[2:5]]
    assert rows == [
        ["1", "0.5", "100.0%", "50.0%", "50.0%", "50.0%"],
        ["2", "0.75", "50.0%", "12.5%", "62.5%", "37.5%"],
        ["3", "0.75", "37.5%", "9.4%", "71.9%", "28.1%"],
    ]


def test_plan_goes_on_from_a_pack(tmp_path, capsys):
    net = packed(mlp_trunk(), one=0.5)
    net.save(tmp_path / "pack.keras")
    status, out, _ = run(capsys, f"--pack={tmp_path / 'pack.keras'}", "--tasks=2")
    assert status == 0
    assert out.splitlines()[0].endswith("pack.keras: 1 task, 50.0% of the packed weights free")
    assert [line.split()[0] for line in out.splitlines()[4:6]] == ["2", "3"]
    assert out.splitlines()[5].split()[3:] == ["25.0%", "100.0%", "0.0%"]
    assert "sees the base" not in out


def test_beside_a_base_tasks_see_what_train_lets_them_see(tmp_path, capsys):
    small_pack({"shades": ["dark", "light"]}, base="base").save(tmp_path / "pack.keras")
    status, out, _ = run(capsys, str(tmp_path / "pack.keras"), "--tasks=2")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].endswith("pack.keras: 1 task beside its base, 25.0% of the packed weights free")
    assert [line.split() for line in lines[4:6]] == [
        ["3", "0.5", "25.0%", "12.5%", "62.5%", "12.5%"],
        ["4", "0", "12.5%", "12.5%", "62.5%", "0.0%"],
    ]
    assert (
        lines[-1] == "A task sees the base and its own weights, as packnet train has it by default."
    )


def test_plan_says_what_is_missing_or_wrong(capsys):
    assert run(capsys)[0] == 2
    assert run(capsys, "--ratios=a,b")[0] == 2
    assert run(capsys, "--ratios=0.5,0", "--tasks=3")[0] == 2
    status, _, err = run(capsys, "--ratios=2")
    assert status == 2
    assert "prune_ratio is the fraction" in err
