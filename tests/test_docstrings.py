"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil

import pytest
from keras import layers

import packnet_tf
import packnet_tf.export
from helpers.examples import shared_names
from helpers.pack_helpers import compiled, mlp_trunk, pack_task

# What an example starts from, where that is not a pack without tasks.
OPEN = (
    "Transaction", "reset_optimizer", "update_statistics", "PackNetCallback", "PackNet.prune",
    "PackNet.prune_to", "PackNet.commit", "PackNet.discard",
)  # fmt: skip
ROUTERS = (
    "TaskRouter", "TaskRouter.fit", "TaskRouter.add", "TaskRouter.remove", "TaskRouter.scores",
    "TaskRouter.predict", "TaskRouter.named", "TaskRouter.storage", "TaskRouter.save",
    "TaskRouter.load",
)  # fmt: skip
COMMITTED = (
    "Capacity", "plot_capacity", "load", "export_onnx", "export_bundle", "export_multitask",
    "export_router", *ROUTERS, "TaskSession", "Pack.preview",
    "Pack.task_model", "Pack.unpack", "Pack.classes", "Pack.reused", "Pack.results",
    "Pack.metadata", "PackNet.release", "Exported", "StoredPack.note_results",
    "StoredPack.note_metadata", "StoredPack.restore", "to_precision",
)  # fmt: skip


class RunsOrPrints(doctest.OutputChecker):
    """An example that shows no output has to run; one that shows some has to print just that."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def found():
    """The examples of all modules of the library and of its exporters."""
    for package in (packnet_tf, packnet_tf.export):  # two folders
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if ".apps" in module.name or (".export" in module.name) != (
                "export" in package.__name__
            ):
                continue
            tests = doctest.DocTestFinder(exclude_empty=True).find(
                importlib.import_module(module.name)
            )
            yield from (pytest.param(t, id=t.name.split(".")[-1]) for t in tests if t.examples)


def namespace(name):
    """What examples may use without saying where it comes from."""
    given = shared_names(mlp_trunk())
    net, images, labels = packnet_tf.PackNet(given["trunk"]), given["images"], given["labels"]
    given["net"] = net
    if name.endswith(OPEN):
        given["model"] = compiled(net.add_task("birds", layers.Dense(3)))
        given["model"].fit(images, labels, verbose=0)
    if name.endswith(COMMITTED):
        pack_task(net, "birds")
        net.save("pack.keras")
    if name.endswith(ROUTERS):
        given["router"] = packnet_tf.TaskRouter.fit(net, {"birds": images})
    if name.endswith("to_precision"):
        packnet_tf.export.export_onnx(net, "birds", "model_birds.onnx")
    if name.endswith("TaskSession"):
        packnet_tf.export.export_multitask(net, "all.onnx")
    return given


def test_every_example_that_needs_a_task_is_there():
    examples = [test.values[0].name for test in found()]
    assert [n for n in OPEN + COMMITTED if not any(e.endswith(n) for e in examples)] == []


def test_every_public_name_has_an_example():
    names = [
        (module, name) for module in (packnet_tf, packnet_tf.export) for name in module.__all__
    ]
    for module in (packnet_tf.metrics, packnet_tf.planning):
        homes = {name: getattr(each, "__module__", None) for name, each in vars(module).items()}
        names += [(module, name) for name, home in homes.items() if home == module.__name__]
    public = {
        name: each
        for module, name in names
        if not name.startswith("_") and callable(each := getattr(module, name))
    }
    assert len(public) > 30
    assert [name for name, each in public.items() if ">>>" not in (each.__doc__ or "")] == []


@pytest.mark.parametrize("example", found())
def test_the_example_of_a_docstring_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example.globs.update(namespace(example.name))
    runner = doctest.DocTestRunner(RunsOrPrints(), optionflags=doctest.NORMALIZE_WHITESPACE)
    output = []
    runner.run(example, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)
