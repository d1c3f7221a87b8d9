"""The README's example runs as it stands, on less data and in fewer epochs."""

import pathlib
import re

import keras
import numpy as np
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_readmes_example_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    shorter = {
        "MobileNetV2(": "MobileNet(alpha=0.25, weights=None, ",  # half as many layers to trace
        "input_shape=(96, 96, 3)": "input_shape=(32, 32, 3)",
        "epochs=30": "epochs=2, verbose=0",
        "prune_epoch=20": "prune_epoch=1",
    }
    for old, new in shorter.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    # One batch of each task.
    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype("float32")
    tasks = {
        name: ([(images, np.arange(4))], (images, np.arange(4)), classes)
        for name, classes in [("birds", 200), ("cars", 196)]
    }
    monkeypatch.chdir(tmp_path)
    space = {
        "tasks": {n: (iter_data(d), v, c) for n, (d, v, c) in tasks.items()},
        "photos": images,
    }
    exec(code, space)
    assert space["net"].tasks == ("base", "birds", "cars")
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == [
        "manifest.json",
        "model_task1.onnx",
        "model_task2.onnx",
        "model_task3.onnx",
    ]
    assert (tmp_path / "pack.keras").exists()


def iter_data(batches):
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, place):
            return batches[place]

    return Data()
