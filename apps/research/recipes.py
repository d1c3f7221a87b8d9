"""The recipes in the package: files for `packnet compare`, found by name."""

import pathlib

FOLDER = pathlib.Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Returns the names of the recipes, `paper/vgg16` for instance."""
    files = [path for path in FOLDER.rglob("*.yaml") if not path.name.startswith("_")]
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in files)


def find_file(name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Finds a file by its path, or a recipe by its name.

    Returns:
        The file, and the folder that relative paths in it start from: the file's folder, or the
        current folder for a recipe.

    Raises:
        FileNotFoundError: there is no such file or recipe.
    """
    path = pathlib.Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path, path.parent
    if name not in recipe_names():
        raise FileNotFoundError(
            f"'{name}' is neither a .yaml file nor a recipe; recipes are: "
            f"{', '.join(recipe_names())}."
        )
    return FOLDER / f"{name}.yaml", pathlib.Path()


def recipes_table() -> str:
    """Lays out the recipes, each with the first comment of its file."""
    rows = []
    for name in recipe_names():
        first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        rows.append([name, first.lstrip("# ")])
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)
