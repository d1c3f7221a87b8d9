"""Runs pytest for Bazel's py_test targets: `run_pytest.py [arguments of pytest]`."""

import os
import sys

import pytest


def main() -> int:
    # An editable install in the same environment would find the modules that a target forgot to
    # name in its deps.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
    arguments = ["-p", "no:cacheprovider", "--numprocesses=0", *sys.argv[1:]]
    if scratch := os.environ.get("TEST_TMPDIR"):
        arguments.append(f"--basetemp={scratch}/pytest")
        os.environ["HOME"] = scratch  # onnxruntime complains where it cannot write there
    if report := os.environ.get("XML_OUTPUT_FILE"):
        arguments.append(f"--junitxml={report}")
    status = pytest.main(arguments)
    # A file with slow tests only has nothing to run here.
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else int(status)


if __name__ == "__main__":
    sys.exit(main())
