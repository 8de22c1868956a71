"""Runs the network of the example `style` in ONNX Runtime, on what the example saw, and prints how far the outputs are apart.

    cargo run --release -p convolve-examples --example style -- --style 7 --tensors
    python3 examples/style/compare.py out/style/style-07.safetensors [THREADS]       # needs numpy and onnxruntime

Without THREADS ONNX Runtime takes as many as it likes.
"""

import json
import pathlib
import re
import sys
import time

try:
    import numpy
    import onnxruntime
except ImportError as error:
    sys.exit(f"compare: {error}; pip install numpy onnxruntime")

NETWORK = pathlib.Path(__file__).parents[2] / "target/examples/style/multistyle26.onnx"


def read(path):
    """The tensors of a safetensors file, all of f32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        name: numpy.frombuffer(data[start:][slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }


path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out/style/style-07.safetensors")
name = re.fullmatch(r"style-(\d+)\.safetensors", path.name)
if not (name and path.exists()):
    sys.exit(f"compare: {path} is not a style-NN.safetensors that is there; the example writes it with --tensors")
if not NETWORK.exists():
    sys.exit(f"compare: {NETWORK} is not there; examples/fetch style fetches it")
style = int(name[1])
tensors = read(path)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2]) if len(sys.argv) > 2 else 0
session = onnxruntime.InferenceSession(NETWORK, options, providers=["CPUExecutionProvider"])
inputs = {
    "image": tensors["input"][None],
    "style_weights": numpy.eye(26, dtype=numpy.float32)[style],
}
times = []
for _ in range(10):
    begin = time.perf_counter()
    output = session.run(None, inputs)[0]
    times.append(time.perf_counter() - begin)
difference = numpy.abs(output[0] - tensors["output"]).max()
print(f"style {style}: max abs difference {difference:.2e}; ONNX Runtime takes {min(times) * 1e3:.0f} ms, the fastest of ten runs")
