"""The command line: help, flags, exit status, sentences instead of tracebacks."""

import errno
import importlib
import os
import subprocess
import sys

import keras
import pytest

import packnet_tf
from packnet_tf.apps import cli
from packnet_tf.apps.main import COMMANDS, main


def run(capsys, *arguments):
    status = main(list(arguments))
    out = capsys.readouterr()
    return status, out.out, out.err


def test_help_lists_every_command(capsys):
    status, out, err = run(capsys, "--help")
    assert (status, err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_commands_help_has_an_example_and_its_flags(command, capsys):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert "Example:\n  packnet " + command in out
    assert "Flags:\n" in out
    assert "--[no]debug" in out
    assert max(map(len, out.splitlines())) <= 80


def test_required_flags_are_marked_in_the_help(capsys):
    _, out, _ = run(capsys, "train", "--help")
    assert "--pack (required)\n" in out
    assert "--epochs\n      All epochs, those after the prune included. (default: 15)" in out
    flags = out[out.index("Flags:") :]
    assert flags.index("--image_size") < flags.index("More flags:") < flags.index("--accumulation")


def test_help_of_a_command_comes_both_ways(capsys):
    assert run(capsys, "help", "train") == run(capsys, "train", "--help")
    assert run(capsys, "help") == run(capsys, "--help")
    assert "there is no command 'trian'. Did you mean 'train'?" in run(capsys, "help", "trian")[2]


@pytest.fixture
def seen(monkeypatch):
    """Flags and arguments that a command was run with, by the name of the command."""
    found = {}

    def watch(command):
        module = importlib.import_module(f"packnet_tf.apps.commands.{command}")
        monkeypatch.setattr(
            module, "run", lambda values, rest: found.update(values=values, rest=rest)
        )
        return found

    return watch


def test_packs_and_folders_go_without_a_flag_and_anywhere(seen, capsys):
    found = seen("export")
    assert main(["export", "garden.keras", "--precision=int8", "onnx/"]) == 0
    assert (found["values"].pack, found["values"].output) == ("garden.keras", "onnx/")
    assert found["values"].precision == "int8"
    assert main(["export", "--pack=a.keras", "onnx/"]) == 0
    assert (found["values"].pack, found["values"].output) == ("a.keras", "onnx/")
    assert main(["export", "a.keras", "onnx/", "more"]) == 2
    assert "unexpected argument 'more'" in capsys.readouterr().err
    found = seen("predict")
    assert main(["predict", "onnx/", "--task=leaves", "a.jpg", "b.jpg"]) == 0
    assert (found["values"].model, found["values"].task) == (["onnx/"], ["leaves"])
    assert found["rest"] == ["a.jpg", "b.jpg"]
    assert main(["predict", "--model=a.onnx", "--model=b.onnx", "a.jpg"]) == 0
    assert (found["values"].model, found["rest"]) == (["a.onnx", "b.onnx"], ["a.jpg"])


def test_flags_may_have_hyphens(seen):
    found = seen("train")
    given = ["--image-size=96", "--no-gradual", "--nodecay", "--learning-rate", "0.1", "a-b.keras"]
    assert main(["train", *given]) == 0
    values = found["values"]
    assert (values.image_size, values.gradual, values.decay) == (96, False, False)
    assert (values.learning_rate, values.pack) == (0.1, "a-b.keras")


def test_folders_are_looked_at_before_tensorflow_and_few_epochs_are_enough(capsys):
    status, out, err = run(capsys, "train", "a.keras", "--task=t", "--data=gone", "--epochs=5")
    assert (status, out) == (1, "Packing t into a.keras ...\n")
    assert err.startswith("packnet train: There is no folder 'gone'. Expected DIR/{train,")


def test_ctrl_c_ends_with_status_130(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        importlib.import_module("packnet_tf.apps.commands.plan"), "run", interrupted
    )
    assert run(capsys, "plan", "--tasks=2") == (130, "", "\npacknet plan: interrupted.\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fly"], "there is no command 'fly'. Commands: demo, train, export,"),
        (["exprot"], "there is no command 'exprot'. Did you mean 'export'? Commands: demo,"),
        (["train"], "packnet train: --pack is missing. See packnet train --help."),
        (["report", "--colour=red"], "Unknown command line flag 'colour'"),
        (["train", "--epochs=many"], "--epochs=many"),
        (["report", "--pack=a.keras", "b.keras"], "unexpected argument 'b.keras'"),
        (["predict", "--model=m.onnx"], "name at least one image file"),
        (["demo", f"--output={__file__}"], "is a file; name a folder to write to"),
        (
            ["train", "--pack=a.keras", "--task=t", "--data=d", "--epochs=3", "--prune_epoch=3"],
            "--prune_epoch=3 is not below --epochs=3: the task would never be pruned.",
        ),
    ],
)
def test_wrong_flags_end_with_status_2_and_a_sentence(arguments, text, capsys):
    for module in list(sys.modules):
        if module.startswith("packnet_tf.apps.") and hasattr(sys.modules[module], "FLAGS"):
            sys.modules[module].FLAGS.unparse_flags()
            del sys.modules[module]
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert text in err
    assert out == ""


def test_no_command_shows_the_overview_and_is_wrong(capsys):
    status, _, err = run(capsys)
    assert status == 2
    assert "packnet demo" in err


def test_the_version_is_the_packages(capsys):
    assert run(capsys, "--version") == (0, f"packnet_tf {packnet_tf.__version__}\n", "")


def test_errors_of_the_system_are_said_without_their_number(monkeypatch, capsys):
    def full(*_):
        raise OSError(30, "Read-only file system", "p.png")

    monkeypatch.setattr(importlib.import_module("packnet_tf.apps.commands.plan"), "run", full)
    expected = "packnet plan: Read-only file system: 'p.png'\n"
    assert run(capsys, "plan", "--tasks=2") == (1, "", expected)


def test_a_failure_is_a_sentence_with_status_1_and_a_traceback_only_under_debug():
    command = [sys.executable, "-m", "packnet_tf.apps", "report", "--pack=nowhere.keras"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "packnet report: There is no pack 'nowhere.keras'. packnet train makes one.\n"
    )
    done = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["plan", "--tasks=200"], ["train", "--help"], ["--help"]])
def test_a_reader_that_has_enough_ends_the_command_in_silence(arguments, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "packnet_tf.apps", *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_commands_build_networks_with_channels_last_whatever_keras_is_configured_to():
    keras.config.set_image_data_format("channels_first")
    try:
        cli.start_keras()
        assert keras.config.image_data_format() == "channels_last"
    finally:
        keras.config.set_image_data_format("channels_last")


def test_another_pipe_that_breaks_is_a_failure(capsys, monkeypatch):
    def breaks(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(importlib.import_module("packnet_tf.apps.commands.plan"), "run", breaks)
    assert run(capsys, "plan", "--tasks=2") == (
        1,
        "",
        "packnet plan: [Errno 32] Broken pipe\n",
    )


def test_names_that_are_no_text_are_printed(tmp_path):
    path = os.fsencode(tmp_path) + b"/gr\xfcn.keras"
    try:
        open(path, "wb").close()
    except OSError:
        pytest.skip("this file system takes text only")
    os.remove(path)
    command = [sys.executable, "-m", "packnet_tf.apps", "report", b"--pack=" + path]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"packnet report: There is no pack '{tmp_path}/gr\\udcfcn.keras'. packnet train makes "
        "one.\n"
    )
