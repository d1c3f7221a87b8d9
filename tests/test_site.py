"""The documentation names what exists; `mkdocs build --strict` checks its links in the gate."""

import importlib.util
import pathlib
import re

import pytest

from packnet_tf.apps.main import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("packnet_tf", "export", "apps", "benchmarks", "examples", "tests")
PAGES = [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"]  # names what was there
# Not the examples/s that a command has printed.
NAMED = re.compile(rf"(?<![\w/.-])(?<!\d )((?:docs|{'|'.join(FOLDERS)})/[\w./-]*)")
WRITTEN = re.compile(r"docs/[\w./-]+\.(?:md|json|svg|png)")

pytestmark = pytest.mark.skipif(
    not (ROOT / "export").is_dir(), reason="Bazel keeps the files of export/ and apps/ elsewhere"
)


@pytest.mark.parametrize(
    "path",
    sorted([*PAGES, *ROOT.glob("docs/**/*.md")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_files_that_a_page_names_exist(path):
    named = {name.rstrip("./") for name in NAMED.findall(path.read_text(encoding="utf-8"))}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_pages_that_code_and_examples_name_exist():
    files = [p for f in FOLDERS for p in (ROOT / f).rglob("*") if p.suffix in (".py", ".yaml")]
    named = {name for p in files for name in WRITTEN.findall(p.read_text(encoding="utf-8"))}
    assert "docs/guides/low_accuracy.md" in named  # an error says so
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_of_a_command_has_its_example_and_its_flags(command):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    place = ROOT / "docs" / "hooks" / "commands.py"
    spec = importlib.util.spec_from_file_location("commands_hook", place)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    module = importlib.import_module(f"packnet_tf.apps.commands.{command}")
    page = hook.page(module, command)
    assert f"packnet {command} " in page
    for name, flag in ((n, module.FLAGS[n]) for n in module.FLAGS):
        written = f"`--[no]{flag.name}`" if flag.boolean else f"`--{flag.name}`"
        assert f"{written}\n:" in page or f"{written}, required\n:" in page, name
