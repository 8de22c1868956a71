#!/usr/bin/env python3
"""Ours against ONNX Runtime, OpenVINO, ncnn and MNN: one forward convolution at a time, turn by turn.

    pip install numpy onnx onnxruntime openvino ncnn MNN
    benches/peers/python.py                                        # suite `all`, one core
    benches/peers/python.py --problem mb1ic64ih56oc64kh3ph1 --peers ncnn --json rows.jsonl

In each round `report --quick` measures ours, then every library runs in a child process of its own, which lives on
between the rounds. Its samples are taken as ours are: single runs, weights packed before, all memory allocated and
warm, around every sample a probe that tells whether the core was at its speed. A row is the median of the rounds'
medians.

Every library is given NCHW and gives NCHW, whatever it uses inside: its time contains the reordering, as it does for a
network of one layer. It also contains a call from Python, some microseconds, so problems below about 1 MFLOP
say little. Results are compared with the definition in f64 before anything is timed; a library whose result is wrong
is reported, not timed, and makes the exit code 1. A library that is not installed is named and left out.
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

# Before numpy is loaded: the probe is about one core.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
try:
    import numpy as np
except ImportError:
    sys.exit("numpy is not installed: pip install numpy")

ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = "convolve"


class Unsupported(Exception):
    """A library refuses a problem, or dies of it; the message is its reason."""

    verdict = "unsupported"


class Wrong(Exception):
    """A library computes something else, or the same by transforms that lose too many digits."""

    verdict = "WRONG"


# Problems


@dataclasses.dataclass(frozen=True)
class Axis:
    """Height or width. Dilation 1 is dense; the padding is that before and after the image."""

    input: int
    output: int
    kernel: int
    stride: int
    dilation: int
    padding: tuple


@dataclasses.dataclass(frozen=True)
class Problem:
    """A convolution. As a string it is what the rows of the report have as `problem`."""

    text: str
    name: str
    groups: int
    batch: int
    in_channels: int
    out_channels: int
    axes: tuple

    def __str__(self):
        h, w = self.axes
        groups = f"g{self.groups}" if self.groups != 1 else ""
        return (
            f"{groups}mb{self.batch}ic{self.in_channels}ih{h.input}iw{w.input}oc{self.out_channels}"
            f"oh{h.output}ow{w.output}kh{h.kernel}kw{w.kernel}sh{h.stride}sw{w.stride}"
            f"ph{h.padding[0]}pw{w.padding[0]}dh{h.dilation - 1}dw{w.dilation - 1}"
        )

    def each(self, field):
        """A field of height and width."""
        return [getattr(axis, field) for axis in self.axes]

    @property
    def src_shape(self):
        return (self.batch, self.in_channels, *self.each("input"))

    @property
    def weights_shape(self):
        return (self.out_channels, self.in_channels // self.groups, *self.each("kernel"))

    @property
    def dst_shape(self):
        return (self.batch, self.out_channels, *self.each("output"))

    @property
    def terms(self):
        """Products in one element of the result."""
        return int(np.prod(self.weights_shape[1:]))

    @property
    def flops(self):
        return 2 * int(np.prod(self.dst_shape)) * self.terms

    @property
    def sides(self):
        """Padding: top, left, bottom, right."""
        (top, bottom), (left, right) = self.each("padding")
        return [top, left, bottom, right]


def parse(text):
    """Reads a benchdnn string. The report reads it too and explains what is wrong with it, so this is brief."""
    # No key contains an n: it begins the name.
    body, _, name = text.partition("n")
    body = body.replace("_", "")
    entries = re.findall("([a-z]+)([0-9]+)", body)
    keys = "g mb ic oc ih iw oh ow kh kw sh sw ph pw dh dw".split()
    if "".join(map("".join, entries)) != body or not {key for key, _ in entries} <= set(keys):
        raise argparse.ArgumentTypeError(f"`{text}`: a problem is a sequence of {' '.join(keys)} with their numbers")
    numbers = {key: int(digits) for key, digits in entries}
    height, width = read_axis(numbers, "h"), read_axis(numbers, "w")
    if not (height or width) or not {"ic", "oc"} <= set(numbers):
        raise argparse.ArgumentTypeError(f"`{text}`: ic, oc, and ih and kh or iw and kw are required")
    point = Axis(input=1, output=1, kernel=1, stride=1, dilation=1, padding=(0, 0))
    return Problem(
        text=text,
        name=name.strip('"'),
        groups=numbers.get("g", 1),
        batch=numbers.get("mb", 2),
        in_channels=numbers["ic"],
        out_channels=numbers["oc"],
        axes=(height or point, width or height),
    )


def read_axis(numbers, letter):
    """An axis, or nothing if the string says nothing about it. See kernels/core/src/problem.rs for the rules."""
    size, kernel, output, stride, before, dilation = (numbers.get(key + letter) for key in "ikospd")
    if not (size or kernel or output or before or dilation) and stride in (None, 1):
        return None
    if not size or not kernel:
        raise argparse.ArgumentTypeError(f"i{letter} and k{letter} are required: the string speaks of that axis")
    stride, dilation = stride or 1, (dilation or 0) + 1
    extent = (kernel - 1) * dilation + 1
    output = output or (size + 2 * (before or 0) - extent) // stride + 1
    # From the first pixel that a window covers to the last: what of it is not image is padding.
    covered = (output - 1) * stride + extent
    if before is None:
        before = max(covered - size, 0) // 2
    return Axis(size, output, kernel, stride, dilation, (before, max(covered - size - before, 0)))


def suites():
    """The problem strings of every suite, from the one place where they stand."""
    source = (ROOT / "testkit/src/shapes.rs").read_text()
    texts = re.findall('pub const ([A-Z0-9_]+): &str = r#"(.*?)"#;', source, re.DOTALL)
    return {name.lower(): text.split() for name, text in texts}


def operands(problem):
    """Source and weights, between -1 and 1, always the same."""
    random = np.random.default_rng(0)
    shapes = problem.src_shape, problem.weights_shape
    return [random.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def definition(problem):
    """The result in f64: for every tap a product of matrices."""
    src, weights = (operand.astype(np.float64) for operand in operands(problem))
    groups, (h, w) = problem.groups, problem.axes
    src = np.pad(src, [(0, 0), (0, 0), h.padding, w.padding])
    src = src.reshape(problem.batch, groups, -1, *src.shape[2:])
    taps = np.moveaxis(weights, (2, 3), (0, 1)).reshape(h.kernel, w.kernel, groups, -1, weights.shape[1])
    dst = 0
    for row, column in np.ndindex(h.kernel, w.kernel):
        seen = src[..., window(h, row), window(w, column)]
        dst = dst + taps[row, column] @ seen.reshape(*seen.shape[:3], -1)
    return dst.reshape(problem.dst_shape)


def window(axis, tap):
    """The pixels that a tap meets, one for each output."""
    begin = tap * axis.dilation
    return slice(begin, begin + (axis.output - 1) * axis.stride + 1, axis.stride)


def check(problem, dst, exact):
    """Operands are at most 1, so a sum of K products is within K u K of the exact one, u = 2^-24. Twice that leaves
    room for Winograd's transforms, and is what benches/peers.rs allows."""
    if dst.shape != exact.shape:
        raise Wrong(f"its result is {dst.shape}, not {exact.shape}")
    bound = 2 * problem.terms**2 * 2.0**-24
    distance = np.abs(dst - exact).max()
    # Written so that NaN fails.
    if not distance <= bound:
        raise Wrong(f"an element is {distance:.2g} off, allowed are {bound:.2g}")


# The libraries. Each class is one prepared convolution: `run` does it once, `result` is what it computed.


def onnx_model(problem, weights):
    """A network of one layer whose weights are constants, as bytes."""
    import onnx
    from onnx import helper

    layer = helper.make_node(
        "Conv",
        ["src", "weights"],
        ["dst"],
        kernel_shape=problem.each("kernel"),
        strides=problem.each("stride"),
        dilations=problem.each("dilation"),
        pads=problem.sides,
        group=problem.groups,
    )
    src, dst = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in [("src", problem.src_shape), ("dst", problem.dst_shape)]
    )
    graph = helper.make_graph([layer], "layer", [src], [dst], [onnx.numpy_helper.from_array(weights, "weights")])
    # Old enough for every reader.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return model.SerializeToString()


class OnnxRuntime:
    """ONNX Runtime, its output bound to memory that is allocated once."""

    packages = ["onnxruntime", "onnx"]

    def __init__(self, problem, src, weights, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        model = onnx_model(problem, weights)
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.src = ort.OrtValue.ortvalue_from_numpy(src)
        self.dst = ort.OrtValue.ortvalue_from_shape_and_type(problem.dst_shape, np.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("src", self.src)
        self.binding.bind_ortvalue_output("dst", self.dst)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def result(self):
        return self.dst.numpy()


class OpenVino:
    """OpenVINO, in f32 on any CPU, in the threads that it is given and where they are."""

    packages = ["openvino", "onnx"]

    def __init__(self, problem, src, weights, threads):
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        model = core.compile_model(core.read_model(onnx_model(problem, weights)), "CPU", settings)
        self.request = model.create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(src))

    def run(self):
        self.request.infer(share_outputs=True)

    def result(self):
        return self.request.get_output_tensor().data


class Ncnn:
    """ncnn, in f32. It knows no batch."""

    packages = ["ncnn"]

    def __init__(self, problem, src, weights, threads):
        import ncnn

        if problem.batch != 1:
            raise Unsupported("it takes one image at a time")
        self.net = ncnn.Net()
        option = self.net.opt
        option.num_threads = threads
        option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = False
        option.use_bf16_packed = option.use_bf16_storage = False
        # Memory of a run is kept for the next one.
        self.pools = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
        option.blob_allocator, option.workspace_allocator = self.pools
        with tempfile.TemporaryDirectory() as directory:
            model = pathlib.Path(directory, "weights")
            # Four bytes of zero: f32 follows.
            model.write_bytes(bytes(4) + weights.tobytes())
            if self.net.load_param_mem(self.network(problem)) != 0 or self.net.load_model(str(model)) != 0:
                raise Unsupported("it does not load the network")
        # A copy, so that it is aligned as ncnn likes it.
        self.src = ncnn.Mat(src[0]).clone()
        self.dst = None

    @staticmethod
    def network(problem):
        """The text of a network of one layer."""
        (kh, kw), (sh, sw), (dh, dw) = map(problem.each, ["kernel", "stride", "dilation"])
        top, left, bottom, right = problem.sides
        numbers = {0: problem.out_channels, 6: int(np.prod(problem.weights_shape))}
        numbers.update({1: kw, 11: kh, 2: dw, 12: dh, 3: sw, 13: sh, 4: left, 15: right, 14: top, 16: bottom})
        layer = "Convolution"
        if problem.groups != 1:
            layer, numbers[7] = "ConvolutionDepthWise", problem.groups
        settings = " ".join(f"{key}={number}" for key, number in numbers.items())
        return f"7767517\n2 2\nInput src 0 1 src\n{layer} dst 1 1 src dst {settings}\n"

    def run(self):
        extractor = self.net.create_extractor()
        extractor.input("src", self.src)
        code, self.dst = extractor.extract("dst")
        if code != 0:
            raise Unsupported(f"it ends with code {code}")

    def result(self):
        return np.array(self.dst)[np.newaxis]


class Mnn:
    """MNN, in full f32."""

    packages = ["MNN", "onnx"]

    def __init__(self, problem, src, weights, threads):
        import MNN

        # The converter itself: MNN.tools, which wraps it, runs pip when it is imported, and reports to its makers.
        import _tools as converter

        with tempfile.TemporaryDirectory() as directory:
            theirs, converted = pathlib.Path(directory, "layer.onnx"), pathlib.Path(directory, "layer.mnn")
            theirs.write_bytes(onnx_model(problem, weights))
            flags = f"mnnconvert -f ONNX --modelFile {theirs} --MNNModel {converted} --bizCode layer"
            converter.mnnconvert(flags.split())
            if not converted.exists():
                raise Unsupported("its converter refuses the network")
            self.net = MNN.Interpreter(str(converted))
        settings = {"backend": "CPU", "numThread": threads, "precision": "high"}
        self.session = self.net.createSession(settings)
        self.shape, self.plain = problem.dst_shape, MNN.Tensor_DimensionType_Caffe
        self.tensor = lambda data: MNN.Tensor(data.shape, MNN.Halide_Type_Float, data, self.plain)
        self.net.getSessionInput(self.session).copyFrom(self.tensor(src))

    def run(self):
        self.net.runSession(self.session)

    def result(self):
        dst = self.tensor(np.zeros(self.shape, np.float32))
        self.net.getSessionOutput(self.session).copyToHostTensor(dst)
        return np.array(dst.getNumpyData()).reshape(self.shape)


PEERS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "ncnn": Ncnn, "mnn": Mnn}


# Samples: the rules of benches/sample.rs


class Probe:
    """What the core can do right now: products of matrices that fit its first cache."""

    # A slow core is mostly at half its speed. A window jitters more here than in benches/probe.rs, which allows 10 %.
    SLOW = 0.15
    PRODUCTS = 12

    def __init__(self):
        self.matrices = np.full((3, 48, 48), 0.5, np.float32)
        self.best = 0.0

    def rate(self):
        """Products per second in a window of some 30 us."""
        a, b, c = self.matrices
        # What was measured last has filled the caches.
        for _ in range(2):
            np.matmul(a, b, out=c)
        begin = time.perf_counter()
        for _ in range(self.PRODUCTS):
            np.matmul(a, b, out=c)
        rate = self.PRODUCTS / (time.perf_counter() - begin)
        self.best = max(self.best, rate)
        return rate

    def warm_up(self, seconds=0.05):
        """The core has slept, or has worked for another process."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.rate()

    def is_slow(self, rate):
        return rate < (1 - self.SLOW) * self.best


# As `report --quick`: good samples wanted, and the time after which no further one is begun.
SAMPLES, BUDGET = 5, 0.025
# A sample takes at least that long: short problems are run several times.
LEAST = 200e-6
# When fewer than this fraction of the samples survive, all are used.
SURVIVORS = 0.2


def timed(run, batch):
    begin = time.perf_counter()
    for _ in range(batch):
        run()
    return time.perf_counter() - begin


def batch_size(run):
    """How many runs make a sample. The first run is not timed."""
    run()
    batch = 1
    while (seconds := timed(run, batch)) < LEAST:
        batch = max(batch + 1, int(batch * min(1.1 * LEAST / seconds, 100)))
    return batch


def sample(run, probe):
    """Median and least time of a run, of the samples between two probes that were not slow."""
    probe.warm_up()
    batch = batch_size(run)
    taken, spent = [], 0.0
    while not taken or (spent < BUDGET and len(good(taken, probe)) < SAMPLES):
        before = probe.rate()
        seconds = timed(run, batch)
        taken.append((seconds / batch, min(before, probe.rate())))
        spent += seconds
    times = good(taken, probe)
    steady = len(times) >= SURVIVORS * len(taken)
    slow = len(taken) - len(times)
    if not steady:
        times = [seconds for seconds, _ in taken]
    return {
        "median_s": statistics.median(times),
        "min_s": min(times),
        "samples": len(taken),
        "slow": slow,
        "steady": steady,
    }


def good(taken, probe):
    return [seconds for seconds, rate in taken if not probe.is_slow(rate)]


# Child processes


class Bench:
    """The side of the child: one library, one convolution at a time."""

    def __init__(self, peer, threads):
        for package in peer.packages:
            importlib.import_module(package)
        self.peer, self.threads, self.probe = peer, threads, Probe()
        self.convolution = None

    def prepare(self, problem):
        """Makes a convolution ready and returns what it computes."""
        self.convolution = None
        self.convolution = self.peer(problem, *operands(problem), self.threads)
        self.convolution.run()
        return self.convolution.result()

    def measure(self):
        """A round."""
        return sample(self.convolution.run, self.probe)


def serve(connection, name, threads):
    """The child: answers with a result or an exception until the parent has no more questions."""
    # Libraries talk; standard output is for the tables.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        bench = Bench(PEERS[name], threads)
        connection.send(None)
    except ImportError as error:
        connection.send(ImportError(str(error)))
        return
    with contextlib.suppress(EOFError):
        while True:
            request, *arguments = connection.recv()
            try:
                connection.send(getattr(bench, request)(*arguments))
            except Exception as error:  # Any refusal of a library, in a form that can be sent.
                connection.send(Unsupported(str(error).strip().partition("\n")[0] or repr(error)))


class Worker:
    """The side of the parent. A library that crashes takes one row along and no more."""

    def __init__(self, name, threads):
        self.name, self.threads = name, threads
        self.start()
        self.version = importlib.metadata.version(PEERS[name].packages[0])

    def start(self):
        """Starts the child and waits until it has loaded the library; raises ImportError if it has not."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        child = context.Process(target=serve, args=(theirs, self.name, self.threads), daemon=True)
        child.start()
        theirs.close()
        self.answer()

    def ask(self, *request):
        """The answer of the child; raises what it raised."""
        self.connection.send(request)
        try:
            return self.answer()
        except EOFError:
            self.start()
            raise Unsupported("its process died") from None

    def answer(self):
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


# Rounds


def build_report():
    """Builds the report and returns its path."""
    command = "cargo bench -p convolve-benches --bench report --no-run --message-format=json-render-diagnostics"
    built = subprocess.run(command.split(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        sys.exit(built.returncode)
    for line in built.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable") and message["target"]["name"] == "report":
            return message["executable"]
    sys.exit("cargo names no executable of the benchmark `report`")


def measure_ours(args, problem):
    """The planner's choice in one round: a row of the report for each layout."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "rows.jsonl")
        flags = f"--pass fwd --layout {args.layout} --quick --threads {args.threads} --json {path}"
        command = [args.report, "--problem", problem.text, *flags.split()]
        run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if run.returncode != 0:
            sys.exit(run.stderr.strip() or f"{args.report} ended with {run.returncode}")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["problem"] != str(problem):
            sys.exit(f"`{problem.text}` is {row['problem']} to the report and {problem} here")
    return {row["layout"]: row for row in rows if row["chosen"]}


def measure(args, problem, workers):
    """Ours by layout, and the others by name: a row over all rounds, or the exception that stands for it."""
    ours, theirs = collections.defaultdict(list), collections.defaultdict(list)
    failed = prepare(problem, workers)
    for _ in range(args.rounds):
        for layout, row in measure_ours(args, problem).items():
            ours[layout].append(row)
        for worker in workers:
            if worker.name in failed:
                continue
            try:
                theirs[worker.name].append(worker.ask("measure"))
            except Unsupported as error:
                failed[worker.name] = error
    ours = {layout: merge(rounds) for layout, rounds in ours.items()}
    theirs = {name: merge(rounds) for name, rounds in theirs.items() if name not in failed}
    return ours, {worker.name: {**failed, **theirs}[worker.name] for worker in workers}


def prepare(problem, workers):
    """Makes every library ready and checks it; returns those that failed, with the exception."""
    exact, failed = definition(problem), {}
    for worker in workers:
        try:
            check(problem, worker.ask("prepare", problem), exact)
        except (Unsupported, Wrong) as error:
            failed[worker.name] = error
    return failed


def merge(rounds):
    """The rows of all rounds as one: the median of the medians."""
    return {
        **rounds[-1],
        "median_s": statistics.median(row["median_s"] for row in rounds),
        "min_s": min(row["min_s"] for row in rounds),
        "samples": sum(row["samples"] for row in rounds),
        "slow": sum(row["slow"] for row in rounds),
        "steady": all(row["steady"] for row in rounds),
    }


# Rows: the keys of the JSON file, as in benches/row.rs and benches/peers.rs where they apply


def rows_of(problem, ours, theirs, versions):
    """Ours in every layout, each followed by the others compared with it."""
    rows = []
    for row in ours.values():
        kernel = {"algorithm": OURS, "peer": OURS, "implementation": row["algorithm"], "regret": None}
        rows.append(rated(problem, {**row, **kernel}, row))
        for name, times in theirs.items():
            if isinstance(times, dict):
                who = {"algorithm": name, "peer": name, "implementation": None, "version": versions[name]}
                rows.append(rated(problem, {**place(row), **times, **who}, row))
    return rows


def place(row):
    """What a row of another library has in common with ours: the problem and the machine, not the kernel."""
    keys = "problem name pass layout threads peak_gflops cpu cores commit date".split()
    return {key: row[key] for key in keys}


def rated(problem, row, ours):
    """Fills in what follows from the median."""
    gflops = problem.flops / row["median_s"] / 1e9
    peak = row["peak_gflops"] * row["threads"]
    ratio = row["median_s"] / ours["median_s"]
    return {**row, "gflops": gflops, "peak_fraction": gflops / peak, "ratio": ratio}


# Tables


def table(header, rows):
    """A table in Markdown; all columns but the first are of numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]

    def line(cells):
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths))
        )
        return f"| {' | '.join([first, *others])} |"

    return "\n".join(map(line, [header, ["-" * width for width in widths], *rows]))


def show(rows, theirs):
    """The table of one problem. The others stand in it once, with a ratio to ours in each layout."""
    ours = {row["layout"]: row for row in rows if row["peer"] == OURS}
    first = {row["peer"]: row for row in reversed(rows)}

    def cells(who, row):
        unsteady = "" if row["steady"] else "~"
        return [
            who,
            row["implementation"] or "",
            f"{unsteady}{1e3 * row['median_s']:.4f}",
            f"{row['gflops']:.1f}",
            f"{100 * row['peak_fraction']:.1f}",
            *(f"{row['median_s'] / base['median_s']:.2f}" for base in ours.values()),
        ]

    lines = [cells(f"{OURS} {layout}", row) for layout, row in ours.items()]
    for name, outcome in theirs.items():
        if isinstance(outcome, dict):
            lines.append(cells(name, first[name]))
        else:
            lines.append([name, "", outcome.verdict, "", "", *("" for _ in ours)])
    header = ["who", "kernel", "median ms", "GFLOP/s", "% of peak", *(f"time / {layout}" for layout in ours)]
    reasons = [
        f"{name}, {outcome.verdict}: {outcome}" for name, outcome in theirs.items() if not isinstance(outcome, dict)
    ]
    return "\n".join([table(header, lines), *reasons])


def summary(rows):
    """Ratios for each library and layout of ours, then every row in which a library is faster."""
    groups, losing = collections.defaultdict(list), []
    for row in rows:
        if row["peer"] == OURS:
            ours = row
            continue
        groups[row["layout"], row["peer"]].append(row["ratio"])
        if row["ratio"] < 1:
            name = f"{row['layout']} {row['name'] or row['problem']}"
            share = f"{100 * ours['peak_fraction']:.0f}"
            losing.append([name, row["peer"], f"{row['ratio']:.2f}", share])
    ratios = [
        [
            f"{layout} {peer}",
            str(len(group)),
            f"{statistics.geometric_mean(group):.2f}",
            f"{min(group):.2f}",
            str(sum(ratio < 1 for ratio in group)),
        ]
        for (layout, peer), group in sorted(groups.items())
    ]
    header = ["against", "problems", "time / ours, geometric mean", "least", "faster than ours"]
    tables = [table(header, ratios), table(["losing rows", "peer", "time / ours", "ours, % of peak"], losing)]
    return "\n\n".join(tables)


# The program


def arguments():
    known, peers = suites(), ",".join(PEERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--problem", metavar="STRING", type=parse, action="append", default=[], help="benchdnn string; repeatable")
    add("--suite", metavar="NAME", choices=known, action="append", default=[],
        help=f"repeatable: {', '.join(known)} [default: all, unless there is a --problem]")
    add("--filter", metavar="TEXT", default="", help="only problems with this in their string or name")
    add("--threads", metavar="N", type=positive, default=1, help="1 pins everything to one core [default: 1]")
    add("--layout", choices=["nhwc", "nchw", "both"], default="both", help="of ours [default: both]")
    add("--peers", metavar="LIST", type=peer_names, default=list(PEERS), help=f"[default: {peers}]")
    add("--rounds", metavar="R", type=positive, default=3, help="[default: 3]")
    add("--json", metavar="FILE", help="also writes every row as one JSON object per line")
    add("--report", metavar="PATH", help="executable of the benchmark `report` [default: builds it]")
    args = parser.parse_args()
    if not args.problem and not args.suite:
        args.suite = ["all"]
    layers = [parse(text) for suite in args.suite for text in known[suite]]
    args.problem = chosen(layers + args.problem, args.filter)
    if not args.problem:
        parser.error(f"no problem has `{args.filter}` in it")
    return args


def chosen(problems, text):
    """Those with the text in them, each convolution once."""
    distinct = {}
    for problem in problems:
        distinct.setdefault(str(problem), problem)
    return [problem for problem in distinct.values() if text in problem.text]


def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1 on")
    return int(text)


def peer_names(text):
    names = text.lower().split(",")
    if not set(names) <= set(PEERS):
        raise argparse.ArgumentTypeError(f"`{text}`: known are {','.join(PEERS)}")
    return names


def pin():
    """Pins this process and all that it starts to the last core that it may use, as the report does."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"pinned to core {core}"


def start_workers(args):
    """A worker for each library; those that cannot be loaded are named."""
    workers = []
    for name in args.peers:
        try:
            workers.append(Worker(name, args.threads))
        except (ImportError, EOFError) as error:
            reason = str(error) or "it dies when it is loaded"
            print(f"Missing: {name} ({reason}): pip install {' '.join(PEERS[name].packages)}")
    if not workers:
        sys.exit("there is no library to compare with")
    return workers


def main():
    args = arguments()
    args.report = args.report or build_report()
    pinned = pin() if args.threads == 1 else "not pinned"
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    workers = start_workers(args)
    versions = {worker.name: worker.version for worker in workers}
    print(f"Peers:   {', '.join(f'{name} {version}' for name, version in versions.items())}")
    print(f"Threads: {args.threads}, {pinned}")
    print(f"Timed:   forward, {args.rounds} rounds; the others take and give NCHW")
    rows, wrong = [], 0
    with open(args.json or os.devnull, "w") as file:
        for problem in args.problem:
            print(f"\nfwd {problem} {problem.name}".rstrip(), f"({problem.flops / 1e6:.3f} MFLOP)", flush=True)
            ours, theirs = measure(args, problem, workers)
            more = rows_of(problem, ours, theirs, versions)
            print(show(more, theirs), flush=True)
            file.writelines(json.dumps(row) + "\n" for row in more)
            rows += more
            wrong += sum(isinstance(outcome, Wrong) for outcome in theirs.values())
    print(f"\n{summary(rows)}")
    last = rows[-1]
    print(f"\nCPU: {last['cpu']}, peak of one core {last['peak_gflops']:.1f} GFLOP/s, commit {last['commit']}")
    if wrong:
        sys.exit(f"{wrong} results are wrong: see above")


if __name__ == "__main__":
    main()
