"""Shell scripts as lists of words, to look at commands without running them."""

import re
import shlex

ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)


def commands(script: str) -> list[list[str]]:
    """The commands of a script as words, without comments, redirections and assignments.

    `a --b='c d' | e > f && g` is [["a", "--b=c d"], ["e"], ["g"]]. What `$(...)` runs comes before
    the command that it is a part of.
    """
    found = []
    for line in re.sub(r"\\\n\s*", "", script).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if word and set(word) <= set("|&;"):
                found += [_without_redirections(words)] if words else []
                words = []
            else:
                found += [each for inner in _substitutions(word) for each in commands(inner)]
                words.append(word)
    return [command for command in found if command]


def _substitutions(word: str) -> list[str]:
    return re.findall(r"\$\(([^()]+)\)", word)


def _without_redirections(words: list[str]) -> list[str]:
    kept = []
    for previous, word in zip(["", *words], words, strict=False):
        if not (set(word) <= set("<>") or (previous and set(previous) <= set("<>"))):
            kept.append(word)
    while kept and ASSIGNMENT.fullmatch(kept[0]):
        kept.pop(0)
    return kept
