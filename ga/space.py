"""The space a search moves in: named genes in the unit cube, and what their values mean outside it.

Operators and conductor see numbers between 0 and 1 and need no scales; this table carries the meaning.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.load import InputError
from ga import breeding_kernels, kernels

#: Kinds of genes; the position of a kind is its code in ``ga.kernels``.
KINDS = ("real", "integer", "log", "choice")


@dataclass(frozen=True, eq=False)
class GenomeSpace:
    """What each gene means.

    Parameters
    ----------
    names : tuple of str
        One name per gene, all different.
    low, high : float64 (d,)
        Natural bounds, both included. Not read for a choice.
    kind : tuple of str
        ``real`` (linear between the bounds), ``integer`` (whole numbers, equally likely), ``log``
        (linear in the logarithm; bounds above 0) or ``choice`` (one of a list, equally likely).
    choices : mapping of str to sequence, optional
        Options of each choice gene by its name, at least two: all numbers, which decode to themselves, or
        all texts, which decode to their position in the list.
    name : str
        Name of the space; a saved genome remembers it.

    Raises
    ------
    ValueError
        If lengths differ, a name repeats, bounds are not finite and increasing, or options are missing.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    kind: tuple[str, ...]
    choices: Mapping[str, Sequence[Any]] | None = None
    name: str = "genome"
    _code: np.ndarray = field(init=False, repr=False)
    _table: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names, kind = tuple(self.names), tuple(self.kind)
        low, high = np.array(self.low, dtype=np.float64), np.array(self.high, dtype=np.float64)
        choices = {gene: tuple(options) for gene, options in (self.choices or {}).items()}
        d = len(names)
        if d == 0 or len(set(names)) != d:
            raise ValueError(f"gene names are {names}; they must be different, and at least one")
        if low.shape != (d,) or high.shape != (d,) or len(kind) != d:
            raise ValueError(
                f"{d} genes have low {low.shape}, high {high.shape} and {len(kind)} kinds; each needs {d}"
            )
        if strangers := sorted(set(choices) - {g for g, k in zip(names, kind, strict=True) if k == "choice"}):
            raise ValueError(f"choices are given for {', '.join(strangers)}, which are not choice genes")
        table = np.zeros((d, max([1, *(len(options) for options in choices.values())])))
        for j, gene in enumerate(names):
            if kind[j] not in KINDS:
                raise ValueError(f"gene {gene} has kind {kind[j]!r}; known: {', '.join(KINDS)}")
            if kind[j] == "choice":
                low[j], high[j] = 0.0, len(choices.get(gene, ())) - 1.0
                table[j, : int(high[j]) + 1] = _option_values(gene, choices.get(gene, ()))
            _check_bounds(gene, kind[j], low[j], high[j])
        code = np.array([KINDS.index(k) for k in kind], dtype=np.int8)
        for array in (low, high, code, table):
            array.flags.writeable = False
        for key, value in {
            "names": names,
            "kind": kind,
            "low": low,
            "high": high,
            "choices": choices,
            "_code": code,
            "_table": table,
        }.items():
            object.__setattr__(self, key, value)

    @property
    def n_genes(self) -> int:
        """Number of genes, ``d``."""
        return len(self.names)

    def decode(self, genes: np.ndarray) -> np.ndarray:
        """Return natural values, float64 (p, d), of genes (p, d) in the unit cube.

        Each row decodes to the same bits alone and in any batch.
        """
        genes = self._matrix(genes, "genes")
        out = np.empty_like(genes)
        kernels.decode(genes, self.low, self.high, self._code, self._table, out)
        return out

    def keys(self, genes: np.ndarray) -> list[bytes]:
        """Return what identifies each genome, a list of ``p`` keys of 16 bytes.

        The search, its hall of fame and the cache of fitness call two genomes the same if and only if their
        keys are equal. Here a key is a digest of the decoded values, since nothing outside can tell genomes
        apart that decode to the same. A subclass that knows better overrides this method.

        Parameters
        ----------
        genes : float64 (p, d)
        """
        return self.digests(genes).view("V16").ravel().tolist()

    def digests(self, genes: np.ndarray) -> np.ndarray:
        """Return the bytes of :meth:`keys` as numbers, uint64 (p, 2)."""
        if type(self).keys is not GenomeSpace.keys:
            keys = self.keys(genes)
            if any(len(key) != 16 for key in keys):
                raise ValueError(f"{self.name} identifies a genome by {keys[0]!r}; a key must have 16 bytes")
            return np.frombuffer(bytearray(b"".join(keys)), dtype=np.uint64).reshape(-1, 2)
        digests = np.empty((len(genes), 2), dtype=np.uint64)
        if type(self).decode is GenomeSpace.decode:
            genes = self._matrix(genes, "genes")
            kernels.identify(genes, self.low, self.high, self._code, self._table, digests)
        else:
            kernels.digest(self.decode(genes), digests)
        return digests

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return genes (p, d) of natural values (p, d); whole numbers and choices to the middle of their bin.

        Raises
        ------
        ValueError
            If a value lies outside the bounds of its gene, is not whole, or is none of the choices.
        """
        values = self._matrix(values, "values")
        genes = np.empty_like(values)
        for j, gene in enumerate(self.names):
            column, low, high = values[:, j], self.low[j], self.high[j]
            if self.kind[j] == "choice":
                match = column[:, None] == self._table[j, : int(high) + 1]  # (p, options)
                _refuse(gene, column, ~match.any(axis=1), f"one of {self.choices[gene]}")
                column = np.argmax(match, axis=1).astype(np.float64)
            _refuse(gene, column, ~((column >= low) & (column <= high)), f"between {low:g} and {high:g}")
            if self.kind[j] == "real":
                genes[:, j] = (column - low) / (high - low)
            elif self.kind[j] == "log":
                genes[:, j] = np.log(column / low) / math.log(high / low)
            else:
                _refuse(gene, column, column != np.floor(column), "a whole number")
                genes[:, j] = (column - low + 0.5) / (high - low + 1.0)
        return np.clip(genes, 0.0, 1.0)

    def sample(self, rng: np.random.Generator, p: int) -> np.ndarray:
        """Return ``p`` random genomes, float64 (p, d), as a Latin hypercube.

        Each gene visits each of ``p`` equal strata exactly once. The margins are uniform as with plain
        draws, but no stratum of any gene starts empty, which matters for the small populations that a
        costly fitness allows and for genes with few levels.
        """
        genes = np.empty((p, self.n_genes))
        breeding_kernels.stratify(rng.random((2, p, self.n_genes)), genes)
        return genes

    def values(self, genes: np.ndarray) -> dict[str, float | int | str]:
        """Return the natural values of one genome by name, as a person would write them.

        Parameters
        ----------
        genes : float64 (d,)
        """
        decoded = self.decode(np.asarray(genes)[None])[0]
        named: dict[str, float | int | str] = {}
        for gene, kind, value in zip(self.names, self.kind, decoded.tolist(), strict=True):
            if kind == "choice" and isinstance(self.choices[gene][0], str):
                named[gene] = self.choices[gene][int(value)]
            else:
                named[gene] = int(value) if kind == "integer" else value
        return named

    def _matrix(self, array: np.ndarray, what: str) -> np.ndarray:
        matrix = np.ascontiguousarray(array, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != self.n_genes:
            raise ValueError(f"{what} have shape {matrix.shape}; {self.name} needs (p, {self.n_genes})")
        return matrix


@dataclass(frozen=True, eq=False)
class Genome:
    """One point of the search, with what it earned and where it comes from.

    Parameters
    ----------
    genes : float64 (d,)
        In the unit cube.
    space : str
        Name of the :class:`GenomeSpace` that gives them meaning.
    fitness : float
        Higher is better; NaN if never evaluated.
    origin : tuple of str and int
        Name of the run, and the generation in which the genome was born.

    Raises
    ------
    ValueError
        If genes are not one row of numbers from 0 to 1.
    """

    genes: np.ndarray
    space: str
    fitness: float = math.nan
    origin: tuple[str, int] = ("", 0)

    def __post_init__(self) -> None:
        genes = np.array(self.genes, dtype=np.float64)
        if genes.ndim != 1 or genes.size == 0:
            raise ValueError(f"genes have shape {genes.shape}; a genome has one row of them, (d,)")
        outside = np.flatnonzero(~((genes >= 0.0) & (genes <= 1.0)))
        if outside.size:
            raise ValueError(f"gene {outside[0]} is {genes[outside[0]]}; genes lie between 0 and 1")
        genes.flags.writeable = False
        object.__setattr__(self, "genes", genes)
        object.__setattr__(self, "fitness", float(self.fitness))
        object.__setattr__(self, "origin", (str(self.origin[0]), int(self.origin[1])))

    def save(self, path: Path, space: GenomeSpace) -> None:
        """Write the genome as JSON, with its decoded values beside the genes for people to read."""
        _check_space(self, space, "this genome")
        document = {
            "space": self.space,
            "names": list(space.names),
            "genes": self.genes.tolist(),
            "values": space.values(self.genes),
            "fitness": self.fitness if math.isfinite(self.fitness) else None,
            "origin": {"run": self.origin[0], "generation": self.origin[1]},
        }
        Path(path).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, space: GenomeSpace) -> "Genome":
        """Return the genome that :meth:`save` wrote, bit for bit.

        The genes count; the values beside them are for people and are not read.

        Raises
        ------
        InputError
            If the file is missing, is not a genome, belongs to another space, or has genes outside [0, 1].
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            fitness = document["fitness"]
            genome = cls(
                genes=document["genes"],
                space=document["space"],
                fitness=math.nan if fitness is None else fitness,
                origin=(document["origin"]["run"], document["origin"]["generation"]),
            )
            names = tuple(document["names"])
        except OSError as error:
            raise InputError(f"{path}: the genome cannot be read ({error.strerror})") from error
        except KeyError as error:
            raise InputError(f"{path}: {error.args[0]} is missing; this is not a saved genome") from error
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: this is not a saved genome: {error}") from error
        try:
            _check_space(genome, space, str(path))
        except ValueError as error:
            raise InputError(str(error)) from error
        if names != space.names:
            raise InputError(
                f"{path}: its genes are {', '.join(names)}; {space.name} now has {', '.join(space.names)}"
            )
        return genome


def _check_space(genome: Genome, space: GenomeSpace, place: str) -> None:
    if genome.space != space.name:
        raise ValueError(f"{place}: belongs to the space {genome.space!r}; it was read as {space.name!r}")
    if genome.genes.size != space.n_genes:
        raise ValueError(f"{place}: has {genome.genes.size} genes; {space.name} has {space.n_genes}")


def _check_bounds(gene: str, kind: str, low: float, high: float) -> None:
    if kind == "choice" and high < 1.0:
        raise ValueError(f"gene {gene} is a choice of {int(high) + 1} options; it needs at least two")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"gene {gene} ranges from {low} to {high}; bounds must be finite and increasing")
    if kind == "log" and low <= 0.0:
        raise ValueError(f"gene {gene} is logarithmic from {low}; its lower bound must be above 0")
    if kind == "integer" and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"gene {gene} is an integer from {low} to {high}; its bounds must be whole")


def _option_values(gene: str, options: Sequence[Any]) -> list[float]:
    if all(isinstance(option, str) for option in options):
        return [float(position) for position in range(len(options))]
    if all(isinstance(option, int | float) and math.isfinite(option) for option in options):
        return [float(option) for option in options]
    raise ValueError(f"gene {gene} chooses from {options}; options must be all numbers or all texts")


def _refuse(gene: str, column: np.ndarray, wrong: np.ndarray, must: str) -> None:
    rows = np.flatnonzero(wrong)
    if rows.size:
        raise ValueError(f"gene {gene} is {column[rows[0]]} in row {rows[0]}; it must be {must}")
