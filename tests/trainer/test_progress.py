"""What is seen of a run while it goes on."""

import sys

import pytest

from packnet_tf.trainer.progress import typed_command


def test_a_script_on_the_path_goes_by_its_name_alone(tmp_path, monkeypatch):
    script = tmp_path / "pack it"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "--data=my photos"])
    monkeypatch.setattr(sys, "orig_argv", ["python", str(script), "--data=my photos"])
    assert typed_command() == f"python '{script}' '--data=my photos'"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed_command() == "'pack it' '--data=my photos'"
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "pass"])
    assert typed_command() == "python -c pass"


def test_the_command_to_continue_does_not_start_over(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["packnet", "train", "a.keras", "--fresh"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "packnet", "train", "a.keras", "--fresh"])
    assert typed_command().endswith("train a.keras")


@pytest.mark.parametrize("on_path", [True, False])
def test_the_command_to_continue_is_as_short_as_it_was_typed(on_path, tmp_path, monkeypatch):
    script = tmp_path / "packnet"
    script.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path if on_path else tmp_path / "elsewhere"))
    monkeypatch.setattr(sys, "argv", [str(script), "train", "a b.keras"])
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", *sys.argv])
    assert typed_command() == f"{'packnet' if on_path else script} train 'a b.keras'"
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py")])
    monkeypatch.setattr(sys, "orig_argv", ["python", "script.py"])
    assert typed_command() == "python script.py"
