"""`packnet completion`: what the scripts offer, and that the shells can read them."""

import re
import shutil
import subprocess

import pytest

from packnet_tf.apps.commands.completion import script
from packnet_tf.apps.main import COMMANDS, main


def offered(line):
    """What bash offers at the end of a command line, apart from names of files."""
    words = re.findall(r"=|[^= ]+", line) + [""] * line.endswith(" ")
    setting = (
        "compopt() { :; }\n"  # works within a completion alone
        f"COMP_LINE='{line}' COMP_POINT={len(line)}\n"
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}) COMP_CWORD={len(words) - 1}\n"
        '_packnet\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script("bash") + setting], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("packnet ", [*COMMANDS, "help"]),
        ("packnet ex", ["export"]),
        ("packnet help ev", ["evaluate"]),
        ("packnet export --prec", ["--precision="]),
        ("packnet export garden.keras onnx/ --channel_", ["--channel_order="]),
        ("packnet export --channel-", ["--channel-order="]),
        ("packnet export --precision=", ["float32", "float16", "int8"]),
        ("packnet export --precision=f", ["float32", "float16"]),
        ("packnet export --channel-order=", ["rgb", "bgr"]),
        ("packnet export --json --bund", ["--bundle"]),
        ("packnet export --nobu", ["--nobundle"]),
        ("packnet export --no-bu", ["--no-bundle"]),
        ("packnet completion ", ["bash", "zsh", "fish"]),
        ("packnet export gard", []),  # a file
        ("packnet export --pack=gard", []),
        ("packnet benchmark onnx/ --data=leaves:pho", []),
        ("packnet fly --", []),
    ],
)
def test_bash_offers_commands_flags_and_values(line, words):
    assert offered(line) == words


def test_bash_offers_every_flag_of_a_command_in_the_form_of_the_help(capsys):
    main(["help", "benchmark"])
    shown = re.findall(r"^  --(?:\[no\])?(\w+)", capsys.readouterr().out, re.MULTILINE)
    words = [word.strip("-=") for word in offered("packnet benchmark --")]
    assert set(shown) | {"help"} == {word for word in words if not word.startswith("no")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_read_its_script(shell, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(text)
    done = subprocess.run(
        [shell, "-n", tmp_path / "script"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_other_shells_are_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
