"""What we measure packnet_tf with, beside plain Keras, tf2onnx and files of unpacked networks.

Not installed; run in a checkout. `python -m benchmarks` lists the benchmarks.
"""
