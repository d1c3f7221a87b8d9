"""What setup.py says of the package is true, and said once."""

import ast
import importlib.metadata
import pathlib
import re
import runpy
import sys

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import packnet_tf
import packnet_tf.apps
import packnet_tf.export

ROOT = pathlib.Path(__file__).parents[1]
PACKNET_TF, EXPORT, APPS = (
    pathlib.Path(module.__file__).parent
    for module in (packnet_tf, packnet_tf.export, packnet_tf.apps)
)
LIBRARY, OTHERS = (PACKNET_TF, EXPORT, APPS), (ROOT / "benchmarks", ROOT / "tests")
OURS = {"packnet_tf", "benchmarks", "helpers", "torture"}


@pytest.fixture
def metadata(monkeypatch):
    """What setup.py passes to setuptools."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(folders, everywhere):
    """Modules of other projects that files import: at their top, or everywhere in them."""
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree) if everywhere else tree.body:
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in OURS:
                    yield top


def packages_of(modules):
    """For each module, the packages that hold it."""
    holders = importlib.metadata.packages_distributions()
    return {top: {canonicalize_name(name) for name in holders.get(top, [top])} for top in modules}


def test_everything_that_is_imported_is_declared(metadata):
    always = names(metadata["install_requires"])
    extras = {name: names(texts) for name, texts in metadata["extras_require"].items()}
    optional = {"keras-hub"}  # installed by whoever has presets; an error names it
    for folders, everywhere, declared in [
        ((PACKNET_TF, EXPORT), False, always | {"matplotlib"}),  # of modules that draw
        (LIBRARY, True, always | extras["apps"] | extras["slurm"] | optional),
        (OTHERS, True, always | extras["tests"] | {"setuptools", "packaging"}),
    ]:
        found = packages_of(set(imported(folders, everywhere)))
        assert len(found) >= 2
        assert {top for top, holders in found.items() if not holders & declared} == set()


def test_two_modules_depend_on_the_converter():
    """So another converter can take its place: what calls it, and what it is told of operators."""
    found = {
        path
        for folder in LIBRARY
        for path in folder.rglob("*.py")
        if re.search(r"^ *(import|from) tf2onnx", path.read_text(encoding="utf-8"), re.M)
    }
    assert found == {EXPORT / "convert" / name for name in ("to_onnx.py", "handlers.py")}


def test_one_version_is_in_the_package_the_changelog_and_the_citation(metadata):
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, (version, date) = re.findall(r"^## \[(.+?)\](?: - (.+))?$", changelog, re.M)[:2]
    assert unreleased == ("Unreleased", "")
    assert version == packnet_tf.__version__ == metadata["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'\nversion: {version}\ndate-released: "{date}"\n' in citation


def test_the_installation_without_cuda_names_all_other_requirements(metadata):
    text = (ROOT / "docs" / "guides" / "versions.md").read_text(encoding="utf-8")
    [line] = re.findall(
        r"^pip install (.*keras.*) && pip install --no-deps packnet_tf$", text, re.M
    )
    given = {Requirement(word).name: Requirement(word) for word in line.replace("'", "").split()}
    wanted = map(Requirement, [*metadata["install_requires"], *metadata["extras_require"]["apps"]])
    with_others = {"absl-py", "h5py", "numpy", "rich"}  # Keras's and TensorFlow's
    for requirement in wanted:
        if requirement.name in {*with_others, "onnxruntime-gpu"}:
            continue
        assert requirement.name in given, requirement
        bounded = any(one.operator == "<" for one in requirement.specifier)
        assert given[requirement.name].specifier == (requirement.specifier if bounded else "")
