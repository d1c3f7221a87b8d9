"""Every command line of the pages and of docstrings names commands, flags and files that exist."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from absl import flags

import benchmarks
import benchmarks.train
from benchmarks.command import read_flags
from helpers.pages import PAGES, README, ROOT, blocks, inline, with_blocks
from helpers.pages import name as page_name
from helpers.shell import commands
from packnet_tf.apps import cli, main
from packnet_tf.apps import commands as commands_of_apps
from packnet_tf.apps.research.config import parse, read_comparison
from packnet_tf.apps.research.recipes import find_file

# Programs that are not ours. One that is not listed is taken for a misspelling.
TOOLS = {
    *(
        ".",
        "apt-get",
        "bazel",
        "build/classify",
        "cd",
        "chroot",
        "cmake",
        "cp",
        "eval",
        "ln",
        "pre-commit",
    ),
    *("mmdebstrap", "mount", "npm", "pytest", "ruff", "scp", "source", "ssh", "tar"),
}
OURS = ("examples/", "docs/", ".ci/", "tests/", "benchmarks/")  # folders of the repository
USERS = {"train.py"}  # programs that the reader has


def check(words, complete=True):
    """Checks a command without running it; raises what is wrong with it."""
    for word in words:
        path = re.sub(r"^--?[\w-]+=", "", word)
        if path.startswith(OURS) and "*" not in path:
            assert (ROOT / path).exists(), f"There is no {path}."
    program, *arguments = words
    if program.startswith(OURS):
        return
    program = program.removeprefix(".venv/bin/")
    if program == "packnet":
        check_packnet(arguments, complete)
    elif program in ("python", "python3"):
        check_python(arguments)
    elif program in ("pip", "pip3"):
        check_pip(arguments)
    else:
        assert program in TOOLS, f"There is no program {program}."


def check_packnet(arguments, complete):
    command, *rest = arguments
    if command == "help":
        command, *rest = [*rest, "--help"]
    if command == "--version":
        return
    assert command in main.COMMANDS
    if "--help" in rest:
        return
    module = importlib.import_module(f"packnet_tf.apps.commands.{command}")
    left = cli.parse(module, command, rest)
    if complete:
        cli.check_complete(module, left)
    if command == "compare" and module.FLAGS.file is not None:
        file = module.FLAGS.file
        if file.startswith((*OURS, "paper/")):
            path, base = find_file(str(ROOT / file) if file.startswith(OURS) else file)
            read_comparison(path, module.FLAGS.data or base)


def check_python(arguments):
    what, *rest = arguments
    if what == "-m":
        module, *rest = rest
        assert importlib.util.find_spec(module), f"There is no module {module}."
        if module.startswith("benchmarks."):
            benchmark = importlib.import_module(module)
            if hasattr(benchmark, "CASES"):
                read_flags(benchmark, benchmark.CASES, 1, rest)
            else:
                benchmark.read_flags(rest)
        if module == "pip":
            check_pip(rest)
    elif what == "-c":
        compile(rest[0], "-c", "exec")
    elif what not in USERS:
        text = (ROOT / what).read_text(encoding="utf-8")
        if "app.run(" in text:  # absl's, which can check flags and leave
            done = subprocess.run(
                [sys.executable, ROOT / what, *rest, "--only_check_args"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr + done.stdout


def check_pip(arguments):
    """That our extras are there; other packages are pip's."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    known = set(re.findall(r'"(\w+)":', re.search(r"extras_require=\{(.*)\}", setup)[1]))
    for argument in arguments:
        if asked := re.fullmatch(r"(?:packnet_tf|\.|\./packnet_tf.*\.whl)\[(.+)\]", argument):
            assert set(asked[1].split(",")) <= known


def refusal(line):
    """What is wrong with a line; None if nothing."""
    try:
        for words in commands(line):
            check(words)
    except (AssertionError, OSError, ValueError, SystemExit, flags.Error, cli.UsageError) as error:
        return str(error) or type(error).__name__
    return None


@pytest.mark.parametrize("page", with_blocks("sh"), ids=page_name)
def test_the_commands_of_a_page_are_as_the_programs_take_them(page):
    found = [block for block in blocks(page, "sh") if not commands(block.code)]
    assert found == []
    wrong = {str(block): refusal(block.code) for block in blocks(page, "sh")}
    assert {block: why for block, why in wrong.items() if why} == {}


def test_commands_within_sentences_have_flags_that_exist():
    wrong, checked = {}, 0
    for page in PAGES:
        for code in inline(page):
            words = [word for word in code.split() if word != "..."]
            if len(words) > 1 and words[0] in ("packnet", "python", "pip"):
                checked += 1
                try:
                    check(words, complete=False)
                except (AssertionError, flags.Error, ValueError) as error:
                    wrong[f"{page.name}: {code}"] = str(error)
    assert wrong == {}
    assert checked > 30


def test_flags_within_sentences_are_those_of_a_command():
    of_benchmarks, _ = read_flags(benchmarks.train, benchmarks.train.CASES, 1, [])
    known = {"help", "version", *vars(of_benchmarks)}
    for command in main.COMMANDS:
        values = importlib.import_module(f"packnet_tf.apps.commands.{command}").FLAGS
        known |= {f"{no}{flag}" for flag in values for no in ("", "no")}
    wrong = [
        (page.name, code)
        for page in PAGES
        for code in inline(page)
        if (flag := re.match(r"--([\w-]+)(=\S+)?$", code))
        and flag[1].replace("-", "_").replace("no_", "no", 1) not in known
    ]
    assert wrong == []


def documented():
    """The docstrings that show command lines: of commands, of examples, and the overview."""
    yield "packnet", main.OVERVIEW
    folders = [pathlib.Path(package.__file__).parent for package in (commands_of_apps, benchmarks)]
    for path in (path for f in (*folders, ROOT / "examples") for path in sorted(f.glob("*.py"))):
        yield path.stem, path.read_text(encoding="utf-8").split('"""')[1].replace("\\\\", "\\")


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in documented()])
def test_the_commands_of_a_docstring_are_as_the_programs_take_them(text):
    text = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^ *((?:packnet|python) .*(?:--|/| [A-Z]).*)$", text, re.MULTILINE)
    assert {line: why for line in lines if (why := refusal(line))} == {}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("packnet train p.keras --taks=a", "taks"),
        ("packnet trian p.keras", "trian"),
        ("packnet train --task=a", "pack"),
        ("packnet verify pack.keras onnx/ more", "more"),
        ("packnet export pack.keras onnx/ --for=everything", "for"),
        ("packnet compare --file=paper/resnet51", "resnet51"),
        ("packnet compare --file=examples/five_tasks.yaml", "five_tasks"),
        ("python -m benchmarks.trian", "trian"),
        ("python -m benchmarks.train --only=TinyDarkent", "SystemExit|2"),
        ("python examples/three_tasks.py --data=D --outptu=O", "outptu"),
        ("pip install 'packnet_tf[app]'", "app"),
        ("A=1 pakcnet report p.keras > file", "pakcnet"),
        ('eval "$(packnet completion fsh)"', "fsh|2"),
    ],
)
def test_wrong_commands_are_found(line, named, capsys):
    assert re.search(named, refusal(line) or "nothing")


@pytest.mark.parametrize("page", with_blocks("yaml"), ids=page_name)
def test_the_files_of_a_page_are_as_the_command_reads_them(page):
    for block in blocks(page, "yaml"):
        parse(yaml.safe_load(block.code), pathlib.Path("."))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_an_example_of_a_comparison_is_as_the_command_reads_it(path):
    assert read_comparison(path).methods


def test_every_block_says_its_language():
    assert README in PAGES
    known = {"python", "sh", "yaml", "cpp", "text"}
    found = {block.language for page in PAGES for block in blocks(page, *known, "")}
    assert found <= known
