"""Accuracy of an exported task on arrays, with onnxruntime alone.

For folders of images, use `packnet evaluate`.
"""

from collections.abc import Iterable

import numpy as np

from packnet_tf.export.runtime.session import session


def onnx_accuracy(path, batches: Iterable) -> float:
    """Measures the accuracy of an ONNX file.

    Args:
        path: a `.onnx` file with one float input, whose outputs are logits, probabilities or its
            top classes.
        batches: pairs (inputs (n, ...), labels (n,)) of arrays, as the network takes them.

    Returns:
        Accuracy, 0 to 1.
    """
    model = session(path)
    name = model.get_inputs()[0].name
    wanted = model.get_outputs()[0].name
    right = total = 0
    for images, labels in batches:
        (answers,) = model.run([wanted], {name: np.asarray(images, np.float32)})
        first = answers[:, 0] if wanted == "top_classes" else np.argmax(answers, axis=-1)
        right += int(np.sum(first == np.asarray(labels)))
        total += len(labels)
    return right / total
