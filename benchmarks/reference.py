"""`packnet bench reference`: a step and a prune here, and in PyTorch by the reference method.

The reference method, as the authors' published code does it: before every step of the optimizer
gradients of weights that the task does not train are set to zero, after it pruned weights are; a
prune looks for the k-th smallest magnitude of each layer.
"""

import contextlib
import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator

from benchmarks import cases
from benchmarks.machine import cores
from benchmarks.rows import Row, timed
from benchmarks.trunks import CLASSES, DARKNET_LAYERS
from benchmarks.turns import seconds_of

CASES = (("TinyDarknet", 96, 32), ("VGG16", 64, 8), ("VGG16", 64, 32))
RATIO = 0.75
VGG_LAYERS = (2 * (64,), 2 * (128,), 3 * (256,), 3 * (512,), 3 * (512,))
TURN = 1.0  # seconds of steps before the other side has its turn, about
TORCH = "PyTorch, reference method"


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Steps and prunes in turns, PyTorch in a process of its own.

    Raises:
        RuntimeError: PyTorch is not installed.
    """
    if not has_torch():
        raise RuntimeError("this bench needs PyTorch: pip install torch")
    some = [cases.Case(*network, "graph", "SGD", goal=1.0) for network in CASES]
    for case in cases.wanted(some, lambda case: case.title, only, say):
        yield from measure(case, turns)


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def measure(case: cases.Case, turns: int) -> Iterator[Row]:
    """The rows of a network."""
    model = cases.packed_model(case, 0)
    cases.compile_model(model, case)
    batch, net = cases.random_batch(case), model.pack
    cases.fit_steps(model, batch, 2)
    steps = max(2, round(TURN / seconds_of(lambda: cases.fit_steps(model, batch, 1))))
    times = {"packnet_tf": [], TORCH: []}
    prunes = {"net.prune": [], TORCH: []}
    with torch_process(case) as ask:
        ask("step", 2)
        for _ in range(turns):
            seconds = seconds_of(lambda: cases.fit_steps(model, batch, steps))
            times["packnet_tf"].append(seconds / steps)
            times[TORCH].append(ask("step", steps) / steps)
        for _ in range(turns):
            prunes["net.prune"].append(seconds_of(lambda: net.prune(RATIO)))
            prunes[TORCH].append(ask("prune", 1))
            net.discard()
            net.add_task("next", new_head())
    yield timed(case.title, times, "packnet_tf", TORCH, note="training step")
    yield timed(f"{case.network} {case.pixels} px", prunes, "net.prune", TORCH, note="prune")


def new_head():
    import keras

    return keras.layers.Dense(CLASSES)


@contextlib.contextmanager
def torch_process(case: cases.Case) -> Iterator[Callable[[str, int], float]]:
    """A process that trains the network of a case in PyTorch; gives what asks it for seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(case))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(what: str, count: int) -> float:
        process.stdin.write(f"{what} {count}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def torch_network(name: str, pixels: int):
    """The network of `trunks.build_trunk` with a head, in PyTorch."""
    from torch import nn

    layers, channels = [], 3
    if name == "VGG16":
        for block in VGG_LAYERS:
            for filters in block:
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(512 * (pixels // 32) ** 2, 4096), nn.ReLU()]
        layers += [nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, CLASSES)]
        return nn.Sequential(*layers)
    for layer in DARKNET_LAYERS:
        if layer == "P":
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            continue
        filters, size = layer
        layers.append(nn.Conv2d(channels, filters, size, padding="same", bias=False))
        layers += [nn.BatchNorm2d(filters), nn.LeakyReLU(0.1)]
        channels = filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
    return nn.Sequential(*layers)


class Reference:
    """The first task of the reference method: every weight is its own until it is pruned."""

    def __init__(self, case: cases.Case):
        import torch

        torch.set_num_threads(cores())
        torch.manual_seed(1)
        self.network = torch_network(case.network, case.pixels)
        *trunk, _ = self.network
        self.kernels = [
            layer.weight for layer in trunk if getattr(layer, "weight", None) is not None
        ]
        self.kernels = [kernel for kernel in self.kernels if kernel.dim() > 1]
        self.masks = [torch.ones_like(kernel, dtype=torch.uint8) for kernel in self.kernels]
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9)
        images, labels = cases.random_batch(case)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels).long()

    def step(self) -> None:
        """One step of training."""
        from torch.nn import functional

        self.optimizer.zero_grad()
        functional.cross_entropy(self.network(self.images), self.labels).backward()
        for kernel, mask in zip(self.kernels, self.masks, strict=True):
            kernel.grad[mask != 1] = 0
        self.optimizer.step()
        for kernel, mask in zip(self.kernels, self.masks, strict=True):
            kernel.data[mask == 0] = 0

    def prune(self) -> None:
        """Which weights would go; the masks stay, so that it can be asked again."""
        for kernel, mask in zip(self.kernels, self.masks, strict=True):
            sizes = kernel.data[mask == 1].abs()
            cutoff = sizes.kthvalue(round(RATIO * sizes.numel()))[0]
            remove = kernel.data.abs().le(cutoff) * mask.eq(1)
            pruned = mask.clone()
            pruned[remove] = 0


def serve(case: cases.Case, lines) -> None:
    """Answers each line, "step N" or "prune N", with the seconds it takes to do that N times."""
    reference = Reference(case)
    for line in lines:
        what, count = line.split()
        call = getattr(reference, what)
        seconds = seconds_of(lambda: [call() for _ in range(int(count))])  # noqa: B023
        print(seconds, flush=True)


if __name__ == "__main__":
    serve(cases.Case(**json.loads(sys.argv[1])), sys.stdin)
