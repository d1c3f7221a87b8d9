"""A pack is not bound to the Keras backend that made it."""

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.cases import slow
from helpers.networks import NETWORKS, head_for, samples
from helpers.pack_helpers import jolt, logits, owners, run_python, same
from packnet_tf.export import export_onnx

pytest.importorskip("jax")

OTHER = {"tensorflow": "jax", "jax": "tensorflow"}[keras.backend.backend()]

# Under the other backend: the task that came along answers, another one is packed by fit, saved.
GO_ON = """
    import sys
    import keras, numpy as np, packnet_tf
    from helpers.networks import NETWORKS, head_for, samples
    from helpers.pack_helpers import compiled, fit, logits

    folder, name = sys.argv[1:]
    trunk = NETWORKS[name][0]()
    x = samples(trunk)
    net = packnet_tf.load(f"{folder}/pack.keras")
    np.save(f"{folder}/one.npy", logits(net.task_model("one"), x))
    model = compiled(net.add_task("two", head_for(trunk)), "adam", jit_compile="auto")
    fit(model, x, np.arange(12) % 3, packnet_tf.PackNetCallback(0.5, prune_epoch=1))
    net.save(f"{folder}/pack.keras")
    np.save(f"{folder}/two.npy", logits(net.task_model("two"), x))
    try:
        from packnet_tf.export import export_onnx
        export_onnx(net, "one", f"{folder}/one.onnx")
        print(keras.backend.backend(), "exported")
    except RuntimeError as error:
        print(keras.backend.backend(), error)
"""


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["Conv2D groups", *slow("Bidirectional", "text encoder")])
def test_a_pack_goes_from_backend_to_backend_and_back(name, tmp_path):
    trunk = NETWORKS[name][0]()
    x = samples(trunk)
    net = packnet_tf.PackNet(trunk)
    jolt(net.add_task("one", head_for(trunk)))
    net.prune(0.5)
    net.commit()
    here = logits(net.task_model("one"), x)
    net.save(tmp_path / "pack.keras")

    done = run_python(GO_ON, tmp_path, name, KERAS_BACKEND=OTHER)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), here, rtol=1e-4, atol=1e-5)
    said = done.stdout.splitlines()[-1]
    if OTHER == "jax":
        assert said == (
            "jax ONNX export needs Keras on TensorFlow, and it runs on jax. Save the pack with "
            "net.save, then load and export it in a process started with KERAS_BACKEND=tensorflow."
        )
    else:
        assert said == "tensorflow exported"

    back = packnet_tf.load(tmp_path / "pack.keras")
    assert back.tasks == ("one", "two")
    assert np.array_equal(logits(back.task_model("one"), x), here)  # not a bit went lost
    there = np.load(tmp_path / "two.npy")
    np.testing.assert_allclose(logits(back.task_model("two"), x), there, rtol=1e-4, atol=1e-5)
    ones = [owner == 1 for owner in owners(net).values()]
    assert same([owner == 1 for owner in owners(back).values()], ones)
    if keras.backend.backend() == "tensorflow":
        assert export_onnx(back, "two", tmp_path / "two.onnx", samples=x) < 1e-5
