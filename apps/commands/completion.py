"""print a script that completes commands, flags and their values in a shell.

Bash, in ~/.bashrc:                 eval "$(packnet completion bash)"
Zsh, in ~/.zshrc, after compinit:   eval "$(packnet completion zsh)"
Fish, in config.fish:               packnet completion fish | source

Example:
  packnet completion bash > /etc/bash_completion.d/packnet
"""

import importlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.main import COMMANDS

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("shell",)
flags.DEFINE_enum("shell", None, ["bash", "zsh", "fish"], "The shell.", flag_values=FLAGS)

# Flags are offered with underscores, as in the help, or with hyphens once one is typed. Where
# nothing is offered, the shell completes file names.
BASH = """\
_packnet() {{
    local typed=${{COMP_LINE:0:COMP_POINT}} command=${{COMP_WORDS[1]}} words=
    typed=${{typed##* }}
    if ((COMP_CWORD == 1)); then
        words="{commands}"
    elif [[ $typed == --*=* ]]; then
        typed=${{typed%%=*}}
        case "$command ${{typed//-/_}}" in
{values}
        esac
        typed=${{COMP_WORDS[COMP_CWORD]#=}}  # bash splits words at =
    elif [[ $typed == -* ]]; then
        case $command in
{names}
        esac
        [[ $typed == --*-* ]] && words=${{words//_/-}}
    else
        case $command in
{positional}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$typed"))
    [[ ${{COMPREPLY-}} == *= ]] && compopt -o nospace
    return 0
}}
complete -o default -F _packnet packnet
"""

ZSH = """\
_packnet() {{
    local command=$words[2] offered=
    if ((CURRENT == 2)); then
        offered="{commands}"
    elif [[ $PREFIX == --*=* ]]; then
        local flag=${{PREFIX%%=*}}
        compset -P '*[=:,]'  # TASK:FOLDER,TASK:FOLDER too
        case "$command ${{flag//-/_}}" in
{values}
        esac
    elif [[ $PREFIX == -* ]]; then
        case $command in
{names}
        esac
        [[ $PREFIX == --*-* ]] && offered=${{offered//_/-}}
    else
        case $command in
{positional}
        esac
    fi
    if [[ -z $offered ]]; then
        _files
    else
        compadd -S '' -- ${{(M)${{=offered}}:#*=}}
        compadd -- ${{${{=offered}}:#*=}}
    fi
}}
compdef _packnet packnet
"""

FISH = """\
complete -c packnet -n __fish_use_subcommand -f -a "{commands}"
{lines}
"""


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    print(script(values.shell), end="")


def script(shell: str) -> str:
    """Returns the script for a shell: "bash", "zsh" or "fish"."""
    defined = {name: _flags(name) for name in COMMANDS}
    commands = " ".join([*COMMANDS, "help"])
    positional = {name: _positional_values(name) for name in COMMANDS}
    positional = {name: found for name, found in positional.items() if found}
    positional["help"] = list(COMMANDS)
    if shell == "fish":
        lines = [
            f'complete -c packnet -n "__fish_seen_subcommand_from {command}" {options}'
            for command, found in defined.items()
            for options in map(_fish_options, found)
        ]
        lines += [
            f'complete -c packnet -n "__fish_seen_subcommand_from {command}" -f -a "{" ".join(v)}"'
            for command, v in positional.items()
        ]
        return FISH.format(commands=commands, lines="\n".join(lines))
    template, variable = (BASH, "words") if shell == "bash" else (ZSH, "offered")

    def cases(found: dict[str, list[str]]) -> str:
        return "\n".join(
            f'            "{key}") {variable}="{" ".join(words)}" ;;'
            for key, words in found.items()
        )

    return template.format(
        commands=commands,
        names=cases({command: _words(found) for command, found in defined.items()}),
        values=cases(
            {
                f"{command} __{flag.name}": flag.parser.enum_values
                for command, found in defined.items()
                for flag in found
                if isinstance(flag.parser, flags.EnumParser)
            }
        ),
        positional=cases(positional),
    )


def _module(command: str):
    return importlib.import_module(f"packnet_tf.apps.commands.{command}")


def _flags(command: str) -> list[flags.Flag]:
    """Returns the flags of a command, sorted by name, without aliases."""
    values = _module(command).FLAGS
    return [values[name] for name in sorted(set(values)) if values[name].name == name]


def _positional_values(command: str) -> list[str]:
    """Returns the values of positional arguments that are one of several words."""
    module = _module(command)
    parsers = [module.FLAGS[name].parser for name in getattr(module, "POSITIONAL", ())]
    chosen = [parser for parser in parsers if isinstance(parser, flags.EnumParser)]
    return [value for parser in chosen for value in parser.enum_values]


def _spellings(flag: flags.Flag) -> list[str]:
    """Returns the names of a flag, those that switch it off included."""
    prefixes = ("", "no", "no_") if flag.boolean else ("",)
    return [prefix + flag.name for prefix in prefixes]


def _words(found: list[flags.Flag]) -> list[str]:
    names = [(name, "" if flag.boolean else "=") for flag in found for name in _spellings(flag)]
    return [*(f"--{name}{end}" for name, end in names), "--help"]


def _fish_options(flag: flags.Flag) -> str:
    names = [s for name in _spellings(flag) for s in (name, name.replace("_", "-"))]
    options = " ".join(f"-l {name}" for name in dict.fromkeys(names))
    if isinstance(flag.parser, flags.EnumParser):
        return f'{options} -x -a "{" ".join(flag.parser.enum_values)}"'
    return options if flag.boolean else f"{options} -r"
