"""Which runs go where: landscapes to the CUDA device, where there is one, and all others to the processor.

A meta-generation judges all its candidates on one batch. Its landscapes can be bred as tensors, which pays on
a GPU alone; market windows are compiled strategies and stay where those run. Runs on the two ways are equal
in distribution, not in bits, so every task goes one way with all its candidates: they are compared on the
same random numbers.
"""

import numpy as np
import torch

from compute.workers import Mapper
from conductor.conducting import Conducting
from conductor.curriculum import Batch
from conductor.network import ConductorNetwork
from conductor.objective import Scores
from conductor.steering import Steering
from conductor.torch_conducting import conducted_scores
from conductor.torch_environment import suits
from ga.variation import Variation


def candidate_scores(
    network: ConductorNetwork,
    steering: Steering,
    variation: Variation,
    batch: Batch,
    candidates: np.ndarray,
    mapper: Mapper,
    device: torch.device | str | None = None,
) -> Scores:
    """Return decades of error of whole runs, each candidate conducting all tasks of a batch.

    Parameters
    ----------
    network : ConductorNetwork
    steering : Steering
    variation : Variation
        With operators that tensors do not have, all tasks are run compiled.
    batch : Batch
        Of b tasks, landscapes and others in any order.
    candidates : float64 (C, w)
        Searched weights of C candidates.
    mapper : Mapper
        Works on the compiled runs.
    device : torch.device or str, optional
        Breeds the landscapes as tensors. Without, the CUDA device does; where there is none, all tasks are
        run compiled, with the bits of :class:`conductor.environment.Environment`.

    Returns
    -------
    Scores
        float64 (C * b,) each: the tasks in the order of the batch, those of the first candidate first.
    """
    if device is None and torch.cuda.is_available():
        device = "cuda"
    fits = np.array([device is not None and suits([task], variation) for task in batch.tasks], dtype=bool)

    def compiled(part: Batch) -> Scores:
        many = part.repeated(len(candidates))
        conducting = Conducting(network, steering, many.outlook, candidates)
        return many.scores(many.environment(variation, mapper=mapper).run(conducting))

    def tensors(part: Batch) -> Scores:
        return conducted_scores(network, steering, part, candidates, variation=variation, device=device)

    if not fits.any():
        return compiled(batch)
    if fits.all():
        return tensors(batch)
    merged = Scores(*np.empty((2, len(candidates), len(batch))))
    for way, rows in ((tensors, np.flatnonzero(fits)), (compiled, np.flatnonzero(~fits))):
        found = way(batch.rows(rows))
        for whole, part in ((merged.anytime, found.anytime), (merged.final, found.final)):
            whole[:, rows] = part.reshape(len(candidates), -1)
    return Scores(merged.anytime.ravel(), merged.final.ravel())
