"""Accuracy of an exported task, by onnxruntime alone."""

from collections.abc import Iterable

import numpy as np

from packnet_tf.export.runtime import session


def onnx_accuracy(path, batches: Iterable) -> float:
    """The share of images that an ONNX file puts into the right class.

    Args:
        path: a `.onnx` file with one input and one output, logits or probabilities.
        batches: pairs (inputs (n, ...), labels (n,)) of arrays.

    Returns:
        Accuracy, 0 to 1.
    """
    model = session(path)
    name = model.get_inputs()[0].name
    right = total = 0
    for images, labels in batches:
        (answers,) = model.run(None, {name: np.asarray(images, np.float32)})
        right += int(np.sum(np.argmax(answers, axis=-1) == np.asarray(labels)))
        total += len(labels)
    return right / total
