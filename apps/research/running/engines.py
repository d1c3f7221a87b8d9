"""Where runs are executed: in processes of this machine, each with its GPU, or by Slurm."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from packnet_tf.apps import cli

WORKER = "packnet_tf.apps.research.running.worker"
LOG = "log.txt"
KILLED = -9  # exit status of a process that the system killed


class Handle(Protocol):
    """A worker that was started."""

    def poll(self) -> int | None:
        """Returns the exit status; None while it is at work or waits for its turn."""

    def why_no_result(self) -> str:
        """Returns what its end says, where it has left no word itself."""

    def stop(self) -> None:
        """Asks it to end."""

    def wait(self) -> None:
        """Waits until it has ended."""


class Engine(Protocol):
    """Starts workers.

    Attributes:
        jobs: most of them at once.
    """

    jobs: int

    def start(self, folder: pathlib.Path) -> Handle:
        """Starts the worker of a run.

        Args:
            folder: the folder of the run, with its `run.json`.
        """


class Processes:
    """Processes of this machine; they share its processors, and each has one GPU.

    Args:
        jobs: most processes at once.
        gpus: GPUs as `CUDA_VISIBLE_DEVICES` names them; a process gets the one that the fewest use.
    """

    def __init__(self, jobs: int, gpus: Sequence[str] = ()) -> None:
        self.jobs = jobs
        self._users: dict[str, list[_Process]] = {gpu: [] for gpu in gpus}

    def start(self, folder: pathlib.Path) -> "_Process":
        gpu = None
        if self._users:
            gpu = min(self._users, key=self._in_use)
        process = _Process(folder, {**os.environ, **environment(self.jobs, gpu)})
        if gpu is not None:
            self._users[gpu].append(process)
        return process

    def _in_use(self, gpu: str) -> int:
        return sum(process.poll() is None for process in self._users[gpu])


class _Process:
    def __init__(self, folder: pathlib.Path, variables: Mapping[str, str]) -> None:
        with open(folder / LOG, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(variables),
            )  # fmt: skip

    def poll(self) -> int | None:
        return self.process.poll()

    def why_no_result(self) -> str:
        return _said_by(self.process.returncode)

    def stop(self) -> None:
        self.process.terminate()

    def wait(self) -> None:
        self.process.wait()


def _said_by(status: int) -> str:
    if status == KILLED:
        return (
            "the process was killed, for lack of memory most likely; use --jobs=1, a smaller "
            "batch_size, or cache: false"
        )
    return f"the process ended with status {status} and said nothing"


def environment(jobs: int, gpu: str | None) -> dict[str, str]:
    """Returns the environment variables of one of several processes.

    Args:
        jobs: how many share the processors.
        gpu: its GPU; None: those that the environment names.
    """
    own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    if jobs == 1:
        return own
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    # Several may share a GPU, whose memory the first would take as a whole.
    return {**own, **dict.fromkeys(names, threads), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def visible_gpus() -> list[str]:
    """Returns the GPUs of this machine, as `CUDA_VISIBLE_DEVICES` names them.

    That variable says which, where it is set; elsewhere NVIDIA's driver does, whether TensorFlow
    was installed with CUDA or not.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        tool = shutil.which("nvidia-smi")
        if tool is None:
            return []
        asked = [tool, "--query-gpu=uuid", "--format=csv,noheader"]
        try:
            given = ",".join(subprocess.check_output(asked, text=True, timeout=30).split())
        except (OSError, subprocess.SubprocessError):  # there is no driver
            return []
    return [name for name in given.replace(" ", "").split(",") if name not in ("", "-1")]


class Slurm:
    """Jobs of a Slurm cluster, handed over by submitit; the folders are on a shared drive.

    Args:
        folder: where submitit keeps its files.
        parameters: of submitit's `update_parameters`, such as `slurm_partition`. Without
            `timeout_min` or `slurm_time`, submitit would end jobs after five minutes.
        jobs: most jobs at once, those in the queue included.
        cluster: "slurm", or "local" for processes of this machine.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        parameters: Mapping[str, str | float],
        jobs: int,
        cluster: str = "slurm",
    ) -> None:
        # Else it configures the logging of the whole process when it is imported, which closes the
        # streams of handlers that others have made.
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
        submitit = cli.need("submitit", "submitit", extra="slurm")
        self.jobs = jobs
        self._executor = submitit.AutoExecutor(folder, cluster)
        self._executor.update_parameters(**{"name": "packnet", **parameters})

    def start(self, folder: pathlib.Path) -> "_Submitted":
        return _Submitted(self._executor.submit(work_here, folder))


class _Submitted:
    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        return 1 if self._job.exception() else self._job.result()

    def why_no_result(self) -> str:
        if not self._job.exception():
            return _said_by(self._job.result())
        return f"job {self._job.job_id} ended as {self._job.state}; see {self._job.paths.stderr}"

    def stop(self) -> None:
        self._job.cancel(check=False)  # it may have ended since

    def wait(self) -> None:
        self._job.wait()


def work_here(folder: pathlib.Path) -> int:
    """Executes the worker of a run where this is called; returns its exit status."""
    return _Process(folder, os.environ).process.wait()
