"""Attacks packs and exported files; counts what they end in.

Every attack ends whole (as before or as after), or in a refusal of one sentence. Anything else is a
fault; it is printed with the command that repeats it, and the exit status is 1.
"""

import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# `helpers` and `torture` are found as the tests find them.
sys.path[:0] = [str(path) for path in list(pathlib.Path(__file__).parents)[1:3]]

from torture.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
