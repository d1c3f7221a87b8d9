"""Answers to labelled images, one by one."""

import pytest

from helpers.onnx_files import softmax, write_model, write_picture
from packnet_tf.apps.device.classifier import Classifier
from packnet_tf.apps.device.evaluation import answer


@pytest.mark.parametrize("form", [{}, {"dtype": "float32", "size": (4, 3), "pixel_range": "0,255"}])
def test_every_answer_names_its_image_its_label_and_the_best_classes(form, tmp_path):
    green = write_picture(tmp_path / "green.png", (0, 20, 10))
    red = write_picture(tmp_path / "red.png", (20, 0, 10))
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no image")
    model = Classifier(write_model(tmp_path / "m.onnx", **form))
    answers = answer(model, [(green, 1), (str(damaged), 0), (red, 2)])
    assert answers.failed == [
        f"'{damaged}' is not a readable image: cannot identify image file '{damaged}'"
    ]
    found = [(one.path, one.label, one.classes) for one in answers.images]
    assert found == [(green, 1, [1, 2, 0]), (red, 2, [0, 2, 1])]
    for one in answers.images:
        assert one.probabilities == pytest.approx(softmax([2, 1, 0]))
