"""Shared by all commands: flags, quiet start-up, error messages instead of tracebacks."""

import contextlib
import importlib
import os
import select
import sys
import tempfile
from collections.abc import Iterator

from absl import flags

from packnet_tf.apps.help import describe
from packnet_tf.backend.text import shortened

HELP_FLAGS = ("--help", "-help", "-h")
INTERRUPTED = 130  # exit status after Ctrl-C


class UsageError(Exception):
    """Raised for wrong flags or arguments; the command ends with status 2."""


def new_flags() -> flags.FlagValues:
    """Returns the flags of a new command, with those that every command has."""
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may come after other arguments
    flags.DEFINE_boolean("debug", False, "Show the traceback of an error.", flag_values=values)
    return values


def run(module, command: str, arguments: list[str]) -> int:
    """Runs a command; returns its exit status.

    0 done, 1 failed, 2 wrong flags, 130 interrupted by Ctrl-C.
    """
    if any(argument in HELP_FLAGS for argument in arguments):
        print(describe(module, command))
        return 0
    values = module.FLAGS
    try:
        rest = parse(module, command, arguments)
        check_complete(module, rest)
        module.run(values, rest)
    except (flags.Error, UsageError) as error:
        print(f"packnet {command}: {error}. See packnet {command} --help.", file=sys.stderr)
        return 2
    except SystemExit as ended:  # from the trainer, which has printed how to continue
        return ended.code
    except KeyboardInterrupt as interrupt:
        said = f" {interrupt}" if str(interrupt) else ""
        print(f"\npacknet {command}: interrupted.{said}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            return 1
        if values.debug:
            raise
        print(f"packnet {command}: {_text_of(error)}", file=sys.stderr)
        return 1
    return 0


def parse(module, command: str, arguments: list[str]) -> list[str]:
    """Assigns the flags of a command from its arguments; returns the arguments that are left.

    Raises:
        flags.Error: a flag is unknown, or its value is invalid.
    """
    values = module.FLAGS
    for name in values:
        values[name].unparse()  # a process may run several commands
    rest = values([f"packnet {command}", *_normalize_names(arguments, values)])[1:]
    return _assign_positional(module, values, rest)


def check_complete(module, rest: list[str]) -> None:
    """Checks the parsed flags of a command, and the arguments that are left.

    Raises:
        UsageError: a required flag is missing, or the command takes no further arguments.
    """
    missing = [name for name in getattr(module, "REQUIRED", ()) if module.FLAGS[name].value is None]
    if missing:
        raise UsageError(f"--{missing[0]} is missing")
    if rest and not getattr(module, "TAKES_ARGUMENTS", False):
        raise UsageError(f"unexpected argument '{rest[0]}'; values go with flags, --name=value")


def _text_of(error: Exception) -> str:
    """Returns what an error says, not too long; that of the system without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: '{os.fsdecode(error.filename2 or error.filename)}'"
    return shortened(str(error)) or type(error).__name__


def _normalize_names(arguments: list[str], values: flags.FlagValues) -> list[str]:
    """Rewrites names of flags in arguments as they are defined: --image-size is --image_size."""
    found = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            return found + arguments[place:]
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = name[2:].replace("-", "_")
            positive = name.removeprefix("no_")
            if name not in values and positive in values and values[positive].boolean:
                name = f"no{positive}"
            argument = f"--{name}{equals}{value}"
        found.append(argument)
    return found


def _assign_positional(module, values: flags.FlagValues, rest: list[str]) -> list[str]:
    """Assigns positional arguments, in order, to the flags of `POSITIONAL` that are not set."""
    rest = list(rest)
    for name in getattr(module, "POSITIONAL", ()):
        if rest and not values[name].present:
            values[name].parse(rest.pop(0))
    return rest


def need_pack(path: str) -> None:
    """Checks that a pack exists, before Keras and TensorFlow are imported.

    Raises:
        FileNotFoundError: it does not; the message says how to make one.
        IsADirectoryError: it is a folder.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no pack '{path}'. packnet train makes one.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"'{path}' is a folder. Name a pack, a .keras file.")


def reader_is_gone() -> bool:
    """Whether the reader of stdout has quit (`| head`); if so, redirects stdout to nowhere."""
    try:
        stdout, ends = sys.stdout.fileno(), select.poll()
    except (AttributeError, OSError, ValueError):  # stdout is no file, or the system is Windows
        return False
    ends.register(stdout, 0)
    if not any(event & select.POLLERR for _, event in ends.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True


@contextlib.contextmanager
def as_usage() -> Iterator[None]:
    """Turns errors about the values of flags into `UsageError`s, which end with status 2."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error).rstrip(".")) from error


def need(module: str, package: str, extra: str = "apps"):
    """Imports a module of an extra.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This command needs {package}: pip install 'packnet_tf[{extra}]', or pip install "
            f"{package}."
        ) from error


def start_keras() -> None:
    """Imports Keras on TensorFlow without TensorFlow's start-up messages."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _capture_stderr():
        tf = need("tensorflow", "tensorflow")

        tf.config.list_physical_devices()  # logs its search for GPUs
        if "TF_CONFIG" not in os.environ:  # hosts must be known before TensorFlow starts
            tf.zeros(())
        tf.get_logger().setLevel("ERROR")  # advice on retracing, meant for developers
        import keras
    keras.config.set_image_data_format("channels_last")  # images and exported files are so
    import packnet_tf.tasks.task_model  # noqa: F401


@contextlib.contextmanager
def channels_last() -> Iterator[None]:
    """Lets Keras build layers for images (height, width, channels).

    Its configuration (`~/.keras/keras.json`) may say otherwise.
    """
    import keras

    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


@contextlib.contextmanager
def _capture_stderr() -> Iterator[None]:
    """Captures what native code writes to stderr; prints it only if an error is raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
