"""The pages of the project, README first, and the blocks of code in them."""

import dataclasses
import pathlib
import re
import textwrap

import packnet_tf

ROOT = pathlib.Path(packnet_tf.__file__).parent.parent
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
LANGUAGES = {"python", "sh", "yaml", "cpp", "text", ""}  # "" and text: what a program printed


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code between fences."""

    page: pathlib.Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: pathlib.Path, *languages: str) -> list[Block]:
    """The blocks of a page in some languages, in their order."""
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", text, re.MULTILINE)
    found = [
        Block(page, text.count("\n", 0, fence.start()) + 1, fence[2], textwrap.dedent(fence[3]))
        for fence in fences
    ]
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), page
    return [block for block in found if block.language in languages]


def inline(page: pathlib.Path) -> list[str]:
    """The code within the sentences of a page."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def with_blocks(*languages: str) -> list[pathlib.Path]:
    """The pages that have blocks in some languages."""
    return [page for page in PAGES if blocks(page, *languages)]


def name(page: pathlib.Path) -> str:
    """A page's name in the list of tests."""
    return page.stem
