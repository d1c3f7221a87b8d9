"""Names the class of a picture, on a machine with onnxruntime, numpy and pillow only.

For files exported with preprocessing="uint8", which resize and scale the picture themselves:

  python classify.py model_task1.onnx photo.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, picture = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
channels = session.get_inputs()[0].shape[-1]
with Image.open(picture) as image:
    upright = ImageOps.exif_transpose(image)
if upright.mode.startswith("I;16"):  # 16 bits, which convert would clip
    upright = Image.fromarray(np.rint(np.asarray(upright) / 257).astype(np.uint8))
upright = upright.convert("RGB" if channels == 3 else "L")
pixels = np.asarray(upright).reshape(upright.height, upright.width, channels)
if facts.get("channel_order") == "bgr":  # as it was asked for when the file was exported
    pixels = np.ascontiguousarray(pixels[..., ::-1])

names = [output.name for output in session.get_outputs()]
answers = dict(zip(names, session.run(None, {"image": pixels[None]}), strict=True))
if "top_classes" in answers:
    best, chance = answers["top_classes"][0, 0], answers["top_probabilities"][0, 0]
elif "probabilities" in answers:
    best, chance = answers["probabilities"][0].argmax(), answers["probabilities"][0].max()
else:
    logits = answers["logits"][0].astype(np.float64)
    best, chance = logits.argmax(), 1 / np.exp(logits - logits.max()).sum()

classes = json.loads(facts.get("classes", "null"))
print(f"{classes[best] if classes else f'class {best}'} {chance:.1%}")
