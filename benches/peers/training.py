#!/usr/bin/env python3
"""Steps of training in PyTorch and in candle beside ours, on one core, turn by turn.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch          # 3 GB with the default index
    /tmp/torch/bin/python benches/peers/training.py                          # pinned to the last core
    /tmp/torch/bin/python benches/peers/training.py --rounds 5 --json rows.jsonl

LeNet-5 (batch 64) and a VGG for 32 x 32 pixels (batch 32) as `cargo bench --bench training` builds them: forward, loss,
all gradients, SGD with momentum. PyTorch runs in NCHW and in channels_last, with oneDNN and one thread, memory kept between
steps as it does by itself (`zero_grad` sets to none). candle is the crate in benches/peers/candle, with RAYON_NUM_THREADS=1. In each round every
library has its turn in a process of its own; a figure is the median of the rounds' medians. What is not installed is named and left out.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CANDLE = ROOT / "benches/peers/candle/Cargo.toml"


def torch_steps(layout, seconds):
    """Seconds of a step, by network."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(1)

    def block(before, filters):
        return [
            nn.Conv2d(before, filters, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]

    lenet = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(inplace=True),
        nn.Linear(120, 84), nn.ReLU(inplace=True), nn.Linear(84, 10),
    )
    vgg = nn.Sequential(
        *block(3, 64), *block(64, 128), *block(128, 256), nn.Flatten(), nn.Linear(4096, 10)
    )
    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    medians = {}
    for name, model, shape in [("LeNet-5", lenet, (64, 1, 28, 28)), ("VGG", vgg, (32, 3, 32, 32))]:
        model = model.to(memory_format=order)
        images = torch.rand(shape).mul(2).sub(1).to(memory_format=order)
        labels = torch.tensor([i * 7 % 10 for i in range(shape[0])])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        loss_of = nn.CrossEntropyLoss()
        times, begin = [], time.perf_counter()
        while len(times) < 7 or time.perf_counter() - begin < seconds:
            now = time.perf_counter()
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            optimizer.step()
            times.append(time.perf_counter() - now)
        # The first are warm-up.
        medians[name] = statistics.median(times[2:])
    return medians


def child(command, **environment):
    """What a process prints; nothing if it fails."""
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{' '.join(map(str, command[:3]))} failed: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return ""
    return done.stdout


def ours():
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as rows:
        child(["cargo", "bench", "--quiet", "--bench", "training", "--", "--no-pin", "--json", rows.name])
        lines = [json.loads(line) for line in pathlib.Path(rows.name).read_text().splitlines()]
    return {(row["network"], f"convolve {row['layout']}"): row["median_s"] for row in lines}


def theirs(layout, seconds):
    out = child([sys.executable, __file__, "--child", layout, "--seconds", str(seconds)])
    return {(name, f"PyTorch {layout}"): median for name, median in json.loads(out or "{}").items()}


def candle(seconds):
    command = ["cargo", "run", "--quiet", "--release", "--manifest-path", CANDLE, "--", str(seconds)]
    lines = child(command, RAYON_NUM_THREADS="1").splitlines()
    return {(line.split()[0], "candle"): float(line.split()[1]) for line in lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of every library")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each network and turn of a library")
    parser.add_argument("--json", type=pathlib.Path, help="also writes every figure as one JSON object per line")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(torch_steps(arguments.child, arguments.seconds)))
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    # Before anything is pinned, as builds like all cores.
    subprocess.run(["cargo", "bench", "--quiet", "--no-run", "--bench", "training"], cwd=ROOT, check=True)
    turns = [ours]
    try:
        import torch

        print(f"PyTorch {torch.__version__}")
        turns += [lambda layout=layout: theirs(layout, arguments.seconds) for layout in ["NCHW", "channels_last"]]
    except ImportError:
        print("PyTorch is not installed: pip install torch")
    if subprocess.run(["cargo", "build", "--quiet", "--release", "--manifest-path", CANDLE], cwd=ROOT).returncode:
        print("candle is not measured: benches/peers/candle does not build")
    else:
        turns.append(lambda: candle(arguments.seconds))
    # Children inherit it.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures = {}
    for _ in range(arguments.rounds):
        for turn in turns:
            for key, median in turn().items():
                figures.setdefault(key, []).append(median)
    medians = {key: statistics.median(values) for key, values in figures.items()}
    for network in dict.fromkeys(network for network, _ in medians):
        rows = {who: median for (name, who), median in medians.items() if name == network}
        best = min(median for who, median in rows.items() if who.startswith("convolve"))
        print(f"\n{network:24} {'ms a step':>10} {'over our best':>14}")
        for who, median in rows.items():
            print(f"  {who:22} {1e3 * median:10.3f} {median / best:14.2f}")
    if arguments.json:
        lines = [
            json.dumps({"network": network, "who": who, "median_s": median, "rounds": figures[network, who]})
            for (network, who), median in medians.items()
        ]
        arguments.json.write_text("".join(line + "\n" for line in lines))


if __name__ == "__main__":
    main()
