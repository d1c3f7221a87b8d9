"""Lists the benchmarks: `python -m benchmarks`."""

import importlib

NAMES = (
    *("train", "memory", "prune", "storage", "export", "deploy", "bundles", "multitask", "stem"),
    *("scale", "overlays", "router", "saliency", "reuse"),
)

for name in NAMES:
    summary = importlib.import_module(f"benchmarks.{name}").__doc__.splitlines()[0]
    print(f"python -m benchmarks.{name:9} {summary}")
print("\nMost take --only, --repeats, --json and --help; others have their own flags.")
