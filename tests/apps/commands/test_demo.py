"""The two real runs: `packnet demo`, and two of the three tasks of the comparison."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from packnet_tf.apps.main import main

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.slow
def test_the_demo_packs_exports_and_checks_three_tasks(tmp_path):
    packnet = pathlib.Path(sys.executable).with_name("packnet")  # as `pip install` puts it there
    done = subprocess.run(
        [packnet, "demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(digits_\S+) +(\S+)% +(\S+)% +(\S+)% +(\S+)% +(\S+)$", done.stdout, re.M)
    assert len(rows) == 3
    for _, before, _, retrained, onnx, forgetting in rows:
        assert min(map(float, (before, retrained, onnx))) > 90
        assert retrained == onnx
        assert forgetting == "0.000"
    assert "bit for bit" in done.stdout
    assert done.stderr == ""
    files = {path.name for path in (tmp_path / "demo" / "onnx").iterdir()}
    assert files == {"manifest.json", *(f"model_task{n}.onnx" for n in (1, 2, 3))}
    assert (tmp_path / "demo" / "owners.png").stat().st_size > 10_000


def test_the_demo_writes_over_no_pack_of_the_users(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "pack.keras").touch()
    assert main(["demo"]) == 2
    assert "name another folder, --output=FOLDER, or write --output=demo" in capsys.readouterr().err


@pytest.mark.slow
def test_two_real_tasks_are_packed_into_a_pretrained_trunk(tmp_path):
    data = os.environ.get("PACKNET_TEST_DATA")
    if not data or not (pathlib.Path(data) / "tiny_darknet.keras").exists():
        pytest.skip("PACKNET_TEST_DATA names no folder with the three tasks and the trunk")
    done = subprocess.run(
        [
            sys.executable, ROOT / "examples" / "three_tasks.py", f"--data={data}",
            f"--output={tmp_path}", "--ways=ours", "--tasks=hand_signs,scenes",
            "--prune_ratios=0.5,0.75", "--epochs=2", "--prune_epoch=1", "--image_size=48",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"ours/hand_signs", "ours/scenes"}
    for result in results.values():
        assert result["onnx"] == result["keras"] == pytest.approx(result["test"], abs=1e-6)
        assert result["difference"] < 1e-4
        assert result["onnx"] > 0.3  # of 10 and 6 classes, after one epoch and one more
