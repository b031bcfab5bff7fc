"""What is left of an archive on the test rows, and the files it is kept in."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from backtest.kernels import LANES
from compute.workers import Mapper
from experiments.runs import Run
from ga.elites import Elites, qd_score
from regimes.detector import require_out_of_sample
from specialists.archives import Archive
from specialists.niches import AXES, COLUMNS, NicheFitness
from specialists.specialist import awake_rows, decision_rows
from specialists.training import Ground


@dataclass(frozen=True, eq=False)
class UnseenArchive:
    """The elites on the test rows, each from a flat start; none of them was changed or chosen by it.

    Parameters
    ----------
    objective : float64 (n,)
        The same fitness on the test rows, in the order of :attr:`Archive.objective`.
    measures : float64 (n, 3)
        Behavior on the test rows.
    """

    objective: np.ndarray
    measures: np.ndarray


def open_archive(ground: Ground, archive: Archive, workers: Mapper) -> UnseenArchive:
    """Return the elites on the test rows; the look is to be noted in the ledger first.

    The fitness is that of the training rows, with ``min_trades`` in proportion to the number of rows.

    Raises
    ------
    DataError
        If the detector was fitted on a bar of the test rows.
    ConfigError
        If the test rows are too few for the folds of the fitness.
    """
    test = ground.split.test
    bars = ground.bars[test]
    require_out_of_sample(ground.detector, int(bars.time[0]))
    objective, measures = [], []
    for one in archive.regimes:
        ready = one.search
        train = ready.fitness
        rows = decision_rows(train.family, ready.scaler, ground.features[test])
        awake = awake_rows(ready.regime, ground.regime_labels[test], rows)
        least = round(train.config.min_trades * len(bars) / len(train.bars))
        config = train.config.model_copy(update={"min_trades": least})
        fitness = NicheFitness.of(replace(train, bars=bars, rows=rows, awake=awake, config=config))
        chunks = [one.elites.genes[i : i + LANES] for i in range(0, len(one.elites), LANES)]
        for answer in workers.map(fitness, chunks):
            objective.append(answer[:, 0])
            measures.append(answer[:, COLUMNS])
    return UnseenArchive(np.concatenate(objective), np.concatenate(measures))


def summary(archive: Archive, unseen: UnseenArchive) -> dict[str, Any]:
    """Return what is left of an archive out of sample, as plain objects: all regimes together, and each.

    Coverage is the share of filled cells. The QD score is the sum of the fitness above zero over the cells,
    out of sample over the same cells and specialists. ``same_cell`` is the share of elites that behave out
    of sample as their cell says.
    """
    starts = np.cumsum([0, *(len(one.elites) for one in archive.regimes)])
    parts = {
        one.regime.text: _figures(
            one.elites, unseen.objective[start:stop], unseen.measures[start:stop], one.n_cells
        )
        for one, start, stop in zip(archive.regimes, starts[:-1], starts[1:], strict=True)
    }
    return {"all": _joined(list(parts.values())), **parts}


def save_archive(run: Run, archive: Archive, unseen: UnseenArchive, title: str) -> dict[str, str]:
    """Write ``archive.json``, ``elites.npz`` and ``plots/archive.png``; return captions by path.

    With several regimes there is one picture each, ``plots/archive-volatile.png`` and so on.
    """
    from specialists.figures import draw_archive

    figures = summary(archive, unseen)
    entries, columns = [], []
    start = 0
    for one in archive.regimes:
        space, elites = one.search.fitness.family.space, one.elites
        for i, key in enumerate(space.keys(elites.genes) if len(elites) else []):
            entries.append(
                {
                    "id": key.hex()[:12],
                    "regime": one.regime.text,
                    "born": int(elites.born[i]),
                    "cell": elites.cells[i].tolist(),
                    "behavior": _named(elites.measures[i]),
                    "fitness": float(elites.objective[i]),
                    "fitness_out_of_sample": float(unseen.objective[start + i]),
                    "behavior_out_of_sample": _named(unseen.measures[start + i]),
                    "genes": space.values(elites.genes[i]),
                }
            )
        columns.append(np.full(len(elites), int(one.regime), dtype=np.int8))
        start += len(elites)
    axes = [{"name": axis.name, "edges": axis.edges.tolist()} for axis in AXES]
    run.write_json("archive.json", {"axes": axes, "figures": figures, "elites": entries})
    with run.writing("elites.npz") as draft:
        np.savez_compressed(
            draft,
            regime=np.concatenate(columns),
            unseen_objective=unseen.objective,
            unseen_measures=unseen.measures,
            **{
                name: np.concatenate([getattr(one.elites, name) for one in archive.regimes])
                for name in ("genes", "objective", "measures", "cells")
            },
        )
    captions = {}
    for one in archive.regimes:
        name = "plots/archive.png" if len(archive.regimes) == 1 else f"plots/archive-{one.regime.text}.png"
        grid = np.full([axis.bins for axis in AXES], np.nan)
        grid[tuple(one.elites.cells.T)] = one.elites.objective
        edges = AXES[2].edges
        facets = [f"net exposure {a:+.1f} to {b:+.1f}" for a, b in pairwise(edges)]
        with run.writing(name) as draft:
            draw_archive(
                grid, (AXES[0].edges, AXES[1].edges), draft, f"{title}, {one.regime.text}: in sample", facets
            )
        captions[name] = f"Fitness in sample of the {one.regime.text} archive's cells; empty ones are grey"
    return captions


def _figures(elites: Elites, unseen: np.ndarray, measures: np.ndarray, n_cells: int) -> dict[str, Any]:
    n = len(elites)
    places = np.column_stack(
        [
            np.minimum((axis.scaled(measures[:, i]) * axis.bins).astype(np.int64), axis.bins - 1)
            for i, axis in enumerate(AXES)
        ]
    )
    return {
        "cells": n_cells,
        "filled": n,
        "coverage": n / n_cells,
        "qd_score": qd_score(elites.objective),
        "qd_score_out_of_sample": qd_score(unseen),
        "positive": int((elites.objective > 0.0).sum()),
        "still_positive": int(((elites.objective > 0.0) & (unseen > 0.0)).sum()),
        "same_cell": float((places == elites.cells).all(axis=1).mean()) if n else 0.0,
    }


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    total["coverage"] = total["filled"] / total["cells"]
    same = sum(part["same_cell"] * part["filled"] for part in parts)
    total["same_cell"] = same / total["filled"] if total["filled"] else 0.0
    return total


def _named(values: np.ndarray) -> dict[str, float]:
    return dict(zip((axis.name for axis in AXES), values.tolist(), strict=True))
