"""What must hold for every network, in one run."""

import keras
import numpy as np

import packnet_tf
from helpers.networks import head_for, samples
from helpers.pack_helpers import SPARSE, kernels, logits, owners, packed_layers, same

CLASSES = 3
OVERLAY = 0.25
TASKS = {
    "one": {},
    "two": {},
    "overlaid": {"overlay": OVERLAY},
    "three": {"reuse": ["one"]},
}
JAX = keras.backend.backend() == "jax"


def check_contract(trunk, paths, folder, **policy):
    """Packs tasks into a trunk and holds it to the promises.

    Args:
        trunk: a plain Keras model.
        paths: of the weights that must be packed; None to take what is.
        folder: where to put files.
        **policy: for `PackNet`.

    Returns:
        The pack.
    """
    x = samples(trunk)
    y = np.arange(12) % CLASSES
    before = [np.array(t) for t in keras.tree.flatten(trunk(x, training=False))]
    net = packnet_tf.PackNet(trunk, **policy)
    if paths is not None:
        assert sorted(net.state.weights) == sorted(paths)

    held, answers = {}, {}
    for number, (name, how) in enumerate(TASKS.items(), start=1):
        before_it = owners(net)
        model = net.add_task(name, head_for(trunk, CLASSES), **how)
        if number == 1:  # packing changes nothing
            after = [np.array(t) for t in keras.tree.flatten(model.trunk(x, training=False))]
            assert same(before, after)
        train(model, net, x, (y + number) % CLASSES, eagerly=number > 1)
        claimed = {path: entry["claimed"] for path, entry in net.capacity().items()}
        released = net.prune(0.5)
        if "overlay" in how:
            total = sum(claimed.values())
            assert sum(released.values()) == total - round(OVERLAY * total)
        else:
            assert released == {path: round(0.5 * count) for path, count in claimed.items()}
        if number == 2:
            train(model, net, x, (y + number) % CLASSES, eagerly=True)
        net.commit()
        assert same(owners(net).values(), before_it.values()) == ("overlay" in how)
        held[name], answers[name] = model, logits(model, x)
        assert np.isfinite(answers[name]).all()
        for earlier, model in held.items():
            assert np.array_equal(logits(model, x), answers[earlier]), earlier
    check_answers(net, answers, x)
    assert not np.array_equal(answers["one"], answers["two"])
    assert all(set(np.unique(owner)) <= {0, 1, 2, 3} for owner in owners(net).values())

    net.save(folder / "pack.keras")
    loaded = packnet_tf.load(folder / "pack.keras")
    assert list(loaded.state.weights) == list(net.state.weights)
    assert same(owners(loaded).values(), owners(net).values())
    for name, expected in answers.items():
        assert np.array_equal(logits(loaded.task_model(name), x), expected)
    for name in ("overlaid", "three"):
        held[name].save(folder / "alone.keras")
        alone = keras.saving.load_model(folder / "alone.keras", compile=False)
        assert np.array_equal(logits(alone, x), answers[name])
    loaded.release("overlaid")
    assert np.array_equal(logits(loaded.task_model("three"), x), answers["three"])

    if keras.backend.backend() == "tensorflow":
        check_files(net, trunk, x, folder)
    return net


def train(model, net, x, y, eagerly):
    """One epoch that moves every packed weight; eagerly, since tracing takes seconds."""
    start = kernels(net)
    optimizer = keras.optimizers.AdamW(0.02, weight_decay=0.2, use_ema=True, ema_momentum=0.5)
    how = {"jit_compile": True} if JAX else {"jit_compile": False, "run_eagerly": eagerly}
    model.compile(optimizer, SPARSE, **how)
    model.fit(x, y, batch_size=6, verbose=0)
    for path, kernel in kernels(net).items():
        assert not np.array_equal(start[path], kernel), path


def check_answers(net, answers, x):
    """Every committed task answers as at its commit, to the bit, in new models too."""
    for name, expected in answers.items():
        plain = net.unpack(name)
        assert not packed_layers(plain)
        for model in (net.task_model(name), plain):
            assert np.array_equal(logits(model, x), expected), name


def check_files(net, trunk, x, folder):
    """The exported file answers as Keras, and its inputs are those of the trunk."""
    import onnxruntime

    from packnet_tf.export import export_onnx

    inputs = keras.tree.flatten(trunk.inputs)
    for name in (net.tasks[0], *net.tasks[-2:]):
        path = folder / f"{name}.onnx"
        assert export_onnx(net, name, path, samples=x) < 1e-5
        found = {e.name: e.type for e in onnxruntime.InferenceSession(path).get_inputs()}
        kinds = {"float32": "tensor(float)", "int32": "tensor(int32)"}
        assert list(found.values()) == [kinds[tensor.dtype] for tensor in inputs]
        if len(inputs) > 1:
            assert list(found) == [tensor.name for tensor in inputs]
