"""The layout: no import goes in a circle, and none goes upwards."""

import ast
import pathlib

import packnet_tf
import packnet_tf.apps
import packnet_tf.export

FOLDERS = {
    module.__name__: pathlib.Path(module.__file__).parent
    for module in (packnet_tf, packnet_tf.export, packnet_tf.apps)
}
INITS = set(FOLDERS)  # they import public names on first use


def modules():
    """Every module by its import name, as a syntax tree."""
    found = {}
    for name, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join([name, *parts]).removesuffix(".__init__")
            found[module] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def for_types(node):
    """Whether it is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(tree, known, homes):
    """The modules that one imports, within functions too, but not for their types alone."""
    typing = {id(inner) for node in ast.walk(tree) if for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else homes.get(inner, node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield homes.get(f"{node.value.id}.{node.attr}", "")


def graph():
    """From every module to those of ours that it imports."""
    trees = modules()
    homes = {f"packnet_tf.{name}": home for name, home in packnet_tf._HOMES.items()}
    homes |= {f"packnet_tf.export.{n}": home for n, home in packnet_tf.export._MODULES.items()}
    return {
        module: {one for one in imports(tree, trees, homes) if one in trees} - INITS - {module}
        for module, tree in trees.items()
        if module not in INITS
    }


def packages(edges):
    """The same between packages; a module that lies beside packages is one by itself."""
    holding = {module.rpartition(".")[0] for module in edges}

    def package(module):
        parent = module.rpartition(".")[0]
        return module if module in holding or parent in INITS else parent

    found = {}
    for module, others in edges.items():
        here = found.setdefault(package(module), set())
        here |= {package(other) for other in others} - {package(module)}
    return found


def circle(edges):
    """The nodes that are left when those that lead nowhere are taken away, again and again."""
    edges = dict(edges)
    while ends := {node for node, others in edges.items() if not others & set(edges)}:
        edges = {node: others for node, others in edges.items() if node not in ends}
    return sorted(edges)


def test_modules_import_each_other_in_no_circle():
    edges = graph()
    assert len(edges) > 100
    assert circle(edges) == []


def test_packages_import_each_other_in_no_circle():
    edges = packages(graph())
    assert "packnet_tf.packing" in edges["packnet_tf.tasks"]
    assert circle(edges) == []


def test_no_import_goes_upwards():
    def floor(module):
        return sum(module.startswith(f"packnet_tf.{part}") for part in ("export", "apps.")) + (
            module.startswith("packnet_tf.apps")
        )

    upwards = [(a, b) for a, others in graph().items() for b in others if floor(b) > floor(a)]
    assert upwards == []


def test_no_folder_has_more_than_a_dozen_modules_and_packages():
    for top in FOLDERS.values():
        for folder in {path.parent for path in top.rglob("*.py")}:
            rooms = [p for p in folder.glob("*.py") if p.stem != "__init__"]
            rooms += [p for p in folder.iterdir() if (p / "__init__.py").exists()]
            assert len(rooms) <= 12, (folder, sorted(p.name for p in rooms))
