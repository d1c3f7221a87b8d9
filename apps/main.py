"""The entry point of `packnet`, which finds the command and runs it."""

import contextlib
import difflib
import importlib
import signal
import sys

import packnet_tf
from packnet_tf.apps import cli
from packnet_tf.backend.text import EscapingStream

COMMANDS = {
    "demo": "pack three tasks of handwritten digits, export and check them",
    "train": "train a task on a folder of images and add it to a pack",
    "export": "write the tasks of a pack as ONNX files",
    "verify": "check exported files against the pack they came from",
    "predict": "classify images with exported files, with onnxruntime alone",
    "evaluate": "measure the accuracy of an exported file on a folder of images",
    "benchmark": "measure size, memory, latency and accuracy of exported files",
    "compare": "compare packing with separate networks and other baselines",
    "completion": "print a script that completes commands and flags in a shell",
    "plan": "show how tasks would divide a trunk, before training any",
    "report": "show a pack: tasks, classes, capacity, storage, picture",
}

OVERVIEW = """packnet: many tasks in one Keras network, one ONNX file per task.

Commands:
{commands}

Start with:  packnet demo
Then:        packnet train garden.keras --task=roses --data=roses/ \\
                 --trunk=MobileNetV2
Help:        packnet help COMMAND
"""


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    return OVERVIEW.format(commands="\n".join(lines))


def main(argv: list[str] | None = None) -> int:
    """Runs `packnet` with arguments (default: those of the process); returns the exit status."""
    for stream in (sys.stdout, sys.stderr):  # file names need not be UTF-8
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if argv is None:  # on SIGTERM, end as after Ctrl-C, child processes included
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    out, err = EscapingStream(sys.stdout), EscapingStream(sys.stderr)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = _dispatch(argv)
            sys.stdout.flush()
    except BrokenPipeError:
        if not cli.reader_is_gone():
            raise
        return 1
    return status


def _dispatch(argv: list[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments:
        print(overview(), file=sys.stderr)
        return 2
    command, *rest = arguments
    if command == "help" and rest:
        command, *rest = rest[0], cli.HELP_FLAGS[0]
    if command in (*cli.HELP_FLAGS, "help"):
        print(overview())
        return 0
    if command == "--version":
        print(f"packnet_tf {packnet_tf.__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        meant = f" Did you mean '{near[0]}'?" if near else ""
        known = ", ".join(COMMANDS)
        print(
            f"packnet: there is no command '{command}'.{meant} Commands: {known}.", file=sys.stderr
        )
        return 2
    return cli.run(importlib.import_module(f"packnet_tf.apps.commands.{command}"), command, rest)


if __name__ == "__main__":
    sys.exit(main())
