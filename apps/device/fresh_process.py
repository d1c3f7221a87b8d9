"""Calls a function in a new process, whose memory and caches nothing else has touched."""

import multiprocessing
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Calls a function of a module in a new process, and returns its result.

    The process ends with the call, also if that is interrupted.

    Raises:
        Exception: what the function raises.
        ChildProcessError: the process was killed, by the system for want of memory for instance.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process's memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(
            f"The process that measures ended by itself, with status {process.exitcode}. If the "
            "memory of this machine is short, use a smaller batch."
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if error is not None:
        raise error
    return result


def _call(sender, function: Callable, arguments: tuple) -> None:
    try:
        found = function(*arguments), None
    except Exception as error:
        found = None, error
    sender.send(found)
