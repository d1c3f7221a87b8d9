"""Every module can be imported, with what its Bazel target names and nothing else."""

import importlib
import pkgutil

import benchmarks
import packnet_tf
import packnet_tf.apps
import packnet_tf.export


def test_every_module_is_imported():
    packages = {
        each.__name__: each for each in (packnet_tf, packnet_tf.export, packnet_tf.apps, benchmarks)
    }
    names = {
        found.name
        for name, package in packages.items()
        for found in pkgutil.walk_packages(package.__path__, f"{name}.")
        if not found.name.endswith(".__main__")  # which runs the command line
    }
    assert len(names) > 150
    for name in sorted(names):
        importlib.import_module(name)
