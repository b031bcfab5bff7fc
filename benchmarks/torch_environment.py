"""How fast whole runs of the search go as tensors, beside the compiled runs on the processor.

One run is 40 individuals for 60 generations on 10 genes, 2,440 evaluations, with all statistics, on the
training families in turn. A meta-generation is that many candidates of a small network on that many tasks:
the network sets the controls of every generation of every run, and runs of one task share their random
numbers. Four ways: compiled, on threads; tensors on the processor, in double precision; and on the CUDA
device, if there is one, in double and in single precision. Tensors on a processor are there to be compared;
what pays on a processor is the compiled way.

The last column is the mean final error of all runs, in decades: equal but for chance, since the compiled runs
draw other numbers.

    python -m benchmarks.torch_environment
    python -m benchmarks.torch_environment --candidates 512 --tasks 256 --only cuda
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.measuring import machine
from compute.workers import n_cores
from conductor.conducting import Conducting
from conductor.curriculum import Batch, Landscapes
from conductor.network import ConductorNetwork, flat
from conductor.steering import Steering
from conductor.tasks import TaskSampler
from conductor.torch_conducting import conducted_scores
from conductor.variants.es import Es, EsConfig
from ga.controls import GAControls

#: Spread of the weights of the candidates: networks that say something, but nothing wild.
SPREAD = 0.05


def ways(
    network: ConductorNetwork, weights: np.ndarray, batch: Batch, only: str
) -> dict[str, Callable[[], np.ndarray]]:
    """Return what is compared, by name: each returns the final errors of all runs, in decades."""
    steering, many = Steering.around(GAControls()), batch.repeated(len(weights))

    def compiled() -> np.ndarray:
        policy = Conducting(network, steering, many.outlook, weights)
        return many.scores(many.environment().run(policy)).final

    def tensors(device: str, dtype: torch.dtype) -> np.ndarray:
        return conducted_scores(network, steering, batch, weights, device=device, dtype=dtype).final

    found = {
        f"cpu compiled, {n_cores()} threads": compiled,
        f"cpu tensors, float64, threads: {torch.get_num_threads()}": lambda: tensors("cpu", torch.float64),
    }
    if torch.cuda.is_available():
        found["cuda tensors, float64"] = lambda: tensors("cuda", torch.float64)
        found["cuda tensors, float32"] = lambda: tensors("cuda", torch.float32)
    return {name: work for name, work in found.items() if only in name}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--genes", type=int, default=10)
    parser.add_argument("--population", type=int, default=40)
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for tensors on the processor")
    parser.add_argument("--repeats", type=int, default=2, help="meta-generations per way; the fastest counts")
    parser.add_argument("--only", default="", help="ways whose name contains this")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    network = Es(EsConfig())
    weights = np.random.default_rng(a.seed).normal(0.0, SPREAD, (a.candidates, flat(network).size))
    sampler = TaskSampler("train", a.seed, dimensions=(a.genes,), sizes=((a.population, a.generations),))
    batch = Landscapes(sampler).batch(0, a.tasks)
    n = a.tasks * a.candidates
    print(machine())
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
    print(
        f"{a.candidates} candidates x {a.tasks} tasks = {n:,} runs of {a.population} individuals x "
        f"{a.generations} generations, {a.genes} genes; seed {a.seed}"
    )
    for name, work in ways(network, weights, batch, a.only).items():
        seconds, final = [], np.empty(0)
        for _ in range(a.repeats):
            start = time.perf_counter()
            final = work()
            seconds.append(time.perf_counter() - start)
        best = min(seconds)
        memory = ""
        if name.startswith("cuda"):
            memory = f"{torch.cuda.max_memory_allocated() / 2**30:8.1f} GiB"
            torch.cuda.reset_peak_memory_stats()
        print(
            f"{name:34s}{best:9.2f} s{n * (a.generations + 1) / best:14,.0f} run generations per s"
            f"{60.0 * n / best:14,.0f} runs per minute{final.mean():9.3f} decades{memory}",
            flush=True,
        )


if __name__ == "__main__":
    main()
