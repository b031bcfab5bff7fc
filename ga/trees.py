"""Genomes that are trees: typed programs over signals, as rows of the unit cube, and their variation.

A tree stays a row of numbers between 0 and 1, one gene per node, so that archives, caches, checkpoints and
saved genomes hold it like any other genome. Every row of the cube is a valid tree (:mod:`ga.tree_kernels`);
DEAP's ``gp`` draws trees and varies them, in between they are rows.

Types keep units apart: a ``Number`` is a standardised signal or what arithmetic makes of it, a ``Condition``
is true or false, and nothing adds one to the other. All operations are defined everywhere and bounded on
bounded signals: a tree of height 6 over signals within -4..4 stays below 4 to the 64th.
"""

import math
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Self

import numpy as np
from deap import gp

from ga import tree_kernels as kernels
from ga.operators import python_random
from ga.space import GenomeSpace

#: Depth of the deepest node below the root of any tree; the root alone has height 0.
MAX_HEIGHT = 6
#: Heights of random trees: drawn evenly, half of the trees full and half grown.
RAMP = (1, 4)
#: Heights of the random subtrees that mutation puts in.
GRAFT = (0, 2)
#: Share of leaves among crossover points (Koza 1992).
LEAVES = 0.1
#: Bins among a number's terminals that constants get when a tree is drawn: a threshold needs one.
CONSTANTS = 4
#: Rows by which trees are told apart.
N_PROBES = 1024
#: Rounds of drawing trees that say nothing new again.
ROUNDS = 10


class _Fixed(type):
    """A class whose hash is no address: DEAP puts types into sets, and the order of a set decides a draw."""

    def __hash__(cls) -> int:
        return len(cls.__name__)


class Number(metaclass=_Fixed):
    """Type of a node that is a real number."""


class Condition(metaclass=_Fixed):
    """Type of a node that is true (1.0) or false (0.0)."""


def _quotient(a: float, b: float) -> float:
    return a / math.sqrt(1.0 + b * b)


def _squash(a: float) -> float:
    return a / (1.0 + abs(a))


# Name, function, arguments and type, in the order of the codes in ga.tree_kernels.
PRIMITIVES: tuple[tuple[str, Callable, tuple[type, ...], type], ...] = (
    ("add", operator.add, (Number, Number), Number),
    ("sub", operator.sub, (Number, Number), Number),
    ("mul", operator.mul, (Number, Number), Number),
    ("quotient", _quotient, (Number, Number), Number),
    ("minimum", lambda a, b: a if a < b else b, (Number, Number), Number),
    ("maximum", lambda a, b: a if a > b else b, (Number, Number), Number),
    ("neg", operator.neg, (Number,), Number),
    ("absolute", abs, (Number,), Number),
    ("squash", _squash, (Number,), Number),
    ("choose", lambda c, a, b: a if c > 0.5 else b, (Condition, Number, Number), Number),
    ("greater", lambda a, b: 1.0 if a > b else 0.0, (Number, Number), Condition),
    ("both", operator.mul, (Condition, Condition), Condition),
    ("either", lambda a, b: a if a > b else b, (Condition, Condition), Condition),
    ("negation", lambda a: 1.0 - a, (Condition,), Condition),
)  # fmt: skip

# How a person reads them.
_TEXTS = (
    "({} + {})", "({} - {})", "({} * {})", "quotient({}, {})", "min({}, {})", "max({}, {})", "-{}", "abs({})",
    "squash({})", "if({}, {}, {})", "({} > {})", "({} and {})", "({} or {})", "not {}",
)  # fmt: skip


def _draw_constant() -> float:
    # From Python's global generator like all of DEAP's draws; ``python_random`` seeds it.
    return (random.randrange(kernels.LEVELS) - kernels.ZERO_LEVEL) / kernels.STEPS  # noqa: S311


class Vocabulary:
    """The symbols of trees over some signals: as DEAP's primitive set, and as numbers.

    Parameters
    ----------
    signals : tuple of str
        Names, one per column.

    Attributes
    ----------
    primitives : deap.gp.PrimitiveSetTyped
        Its arguments are the signals, then the conditions that each is positive.
    """

    def __init__(self, signals: tuple[str, ...]) -> None:
        k = len(signals)
        self.signals = signals
        self.primitives = gp.PrimitiveSetTyped("signal", [Number] * k + [Condition] * k, Number, "ARG")
        names = (*signals, *(f"{name}_is_positive" for name in signals))
        self.primitives.renameArguments(**{f"ARG{i}": name for i, name in enumerate(names)})
        for name, function, arguments, kind in PRIMITIVES:
            self.primitives.addPrimitive(function, list(arguments), kind, name=name)
        self.primitives.addEphemeralConstant("constant", _draw_constant, Number)
        self._constant = self.primitives.mapping["constant"]
        self.primitives.terminals[Number].extend([self._constant] * (CONSTANTS - 1))
        self._nodes = [self.primitives.mapping[name] for name, *_ in PRIMITIVES]
        self._nodes += (self.primitives.mapping[name] for name in names)
        self._codes = {node.name: code for code, node in enumerate(self._nodes)}
        self._codes |= {name: kernels.SIGNAL + i for i, name in enumerate(names)}
        self._zero = kernels.SIGNAL + 2 * k + kernels.ZERO_LEVEL

    def tree(self, program: np.ndarray) -> gp.PrimitiveTree:
        """Return a program (nodes,) as DEAP's tree."""
        return gp.PrimitiveTree([self._node(code) for code in program.astype(int).tolist() if code >= 0])

    def program(self, tree: gp.PrimitiveTree) -> list[int]:
        """Return the numbers of a tree's nodes, in prefix order."""
        return [self._code(node) for node in tree]

    def text(self, program: np.ndarray) -> str:
        """Return a program as a person would write it."""
        stack: list[str] = []
        for code in reversed([code for code in program.astype(int).tolist() if code >= 0]):
            if code < kernels.SIGNAL:
                arity = len(PRIMITIVES[code][2])
                arguments = [stack.pop() for _ in range(arity)]
                stack.append(_TEXTS[code].format(*arguments))
            else:
                stack.append(self._leaf(code - kernels.SIGNAL))
        return stack[0]

    def _leaf(self, place: int) -> str:
        k = len(self.signals)
        if place < k:
            return self.signals[place]
        if place < 2 * k:
            return f"({self.signals[place - k]} > 0)"
        return f"{(place - 2 * k - kernels.ZERO_LEVEL) / kernels.STEPS:g}"

    def _node(self, code: int) -> Any:
        if code < len(self._nodes):
            return self._nodes[code]
        return self.constant(code - self._zero)

    def _code(self, node: Any) -> int:
        if type(node) is self._constant:
            return self._zero + round(node.value * kernels.STEPS)
        return self._codes[node.value if node.arity == 0 else node.name]

    def constant(self, level: int) -> Any:
        """Return the constant ``level / STEPS`` as a node, without a draw."""
        node = self._constant.__new__(self._constant)
        node.value = level / kernels.STEPS
        return node

    def is_constant(self, node: Any) -> bool:
        """Return whether a node is a constant."""
        return type(node) is self._constant


@cache
def vocabulary(signals: tuple[str, ...]) -> Vocabulary:
    """Return the vocabulary of some signals, made once: DEAP registers each for good."""
    return Vocabulary(signals)


@cache
def probes(k: int) -> np.ndarray:
    """Return the rows by which trees are told apart, float64 (1024, k), always the same.

    A quarter each: standard normal, like scaled signals in their middle; uniform on -4..4; all signals
    moved by one common factor up, and up or down. A condition on the rare ends, or on several signals at
    once, as correlated signals fulfil it, is then not mistaken for one that never holds.
    """
    rng = np.random.default_rng([20, k])
    quarter = N_PROBES // 4
    factor = rng.uniform(-4.0, 4.0, (2, quarter, 1))
    side = rng.choice([-1.0, 1.0], (quarter, k))
    rows = np.vstack(
        [
            rng.standard_normal((quarter, k)),
            rng.uniform(-4.0, 4.0, (quarter, k)),
            factor[0] + rng.standard_normal((quarter, k)),
            factor[1] * side + rng.standard_normal((quarter, k)),
        ]
    )
    return np.clip(rows, -4.0, 4.0)


@dataclass(frozen=True, eq=False)
class TreeSpace(GenomeSpace):
    """A genome space whose first genes are a tree; made by :meth:`of`.

    Parameters
    ----------
    signals : tuple of str
        What the trees read.
    max_nodes : int
        Genes of the tree, one per node.
    max_height : int
        Depth of the deepest node, at most 6.
    """

    signals: tuple[str, ...] = ()
    max_nodes: int = 0
    max_height: int = MAX_HEIGHT

    @classmethod
    def of(
        cls,
        signals: Sequence[str],
        genes: Sequence[tuple[str, float, float, str]],
        max_nodes: int = 31,
        max_height: int = MAX_HEIGHT,
    ) -> Self:
        """Return the space of trees over some signals, with further genes after the tree's.

        Parameters
        ----------
        signals : sequence of str
        genes : sequence of (name, low, high, kind)
            As in :class:`GenomeSpace`, at least one.
        max_nodes, max_height : int

        Raises
        ------
        ValueError
            If there are no signals, or the limits are out of range.
        """
        if not signals:
            raise ValueError("a tree without signals says nothing; it needs at least one")
        if not 1 <= max_height <= MAX_HEIGHT:
            raise ValueError(f"max_height is {max_height}; it must be from 1 to {MAX_HEIGHT}")
        if not 3 <= max_nodes <= 127:
            raise ValueError(f"max_nodes is {max_nodes}; it must be from 3 to 127")
        nodes = tuple(f"node_{i}" for i in range(max_nodes))
        return cls(
            names=nodes + tuple(gene[0] for gene in genes),
            low=np.array([0.0] * max_nodes + [gene[1] for gene in genes]),
            high=np.array([1.0] * max_nodes + [gene[2] for gene in genes]),
            kind=("real",) * max_nodes + tuple(gene[3] for gene in genes),
            name=f"tree of height {max_height}",
            signals=tuple(signals),
            max_nodes=max_nodes,
            max_height=max_height,
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the trees."""
        return vocabulary(self.signals)

    def decode(self, genes: np.ndarray) -> np.ndarray:
        """Return natural values, float64 (p, d), of genes (p, d) in the unit cube.

        The first ``max_nodes`` columns are the program, see :mod:`ga.tree_kernels`; its unused places are -1
        whatever their genes are, so that equal programs have equal values.
        """
        values = super().decode(genes)
        nodes = self.max_nodes
        programs = np.empty((len(values), nodes))
        head = np.ascontiguousarray(np.asarray(genes, dtype=np.float64)[:, :nodes])
        kernels.read_programs(head, len(self.signals), self.max_height, programs)
        values[:, :nodes] = programs
        return values

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return genes (p, d) of natural values (p, d).

        Raises
        ------
        ValueError
            If a program is none of this space, or another value lies outside its bounds.
        """
        values = self._matrix(values, "values")
        programs = np.ascontiguousarray(values[:, : self.max_nodes])
        rest = values.copy()
        rest[:, : self.max_nodes] = 0.0
        genes = super().encode(rest)
        genes[:, : self.max_nodes] = self._genes(programs)
        return genes

    def programs(self, genes: np.ndarray) -> np.ndarray:
        """Return the programs, float64 (p, max_nodes), of genes (p, d)."""
        return np.ascontiguousarray(self.decode(genes)[:, : self.max_nodes])

    def trees(self, genes: np.ndarray) -> list[gp.PrimitiveTree]:
        """Return the trees of genes (p, d)."""
        return [self.vocabulary.tree(program) for program in self.programs(genes)]

    def plant(self, trees: Sequence[gp.PrimitiveTree]) -> np.ndarray:
        """Return the genes of trees, float64 (p, max_nodes), without what changes nothing in them.

        Raises
        ------
        ValueError
            If a tree is too high, too large, or wrongly typed.
        """
        programs = np.full((len(trees), self.max_nodes), float(kernels.UNUSED))
        for i, tree in enumerate(trees):
            if len(tree) > self.max_nodes:
                raise ValueError(f"tree {i} has {len(tree)} nodes; at most {self.max_nodes} fit")
            programs[i, : len(tree)] = self.vocabulary.program(tree)
        self._genes(programs)  # before anything reads them
        k, shorter = len(self.signals), np.empty_like(programs)
        kernels.shorten(programs, probes(k), k, shorter)
        return self._genes(shorter)

    def sample(self, rng: np.random.Generator, p: int) -> np.ndarray:
        """Return ``p`` random genomes, float64 (p, d).

        Trees come from DEAP's ramped half-and-half; those that repeat another's semantics, or say the same
        whatever the signals are, are drawn again (a few rounds). The further genes are a Latin hypercube.
        """
        genes = super().sample(rng, p)
        waiting = np.arange(p)
        taken: set[tuple[int, int]] = set()
        with python_random(rng):
            for _ in range(ROUNDS):
                genes[waiting, : self.max_nodes] = self.plant([self._draw() for _ in waiting])
                digests = map(tuple, self.semantics(genes[waiting]).tolist())
                empty = self._constant_answers(genes[waiting])
                again = []
                for row, digest, dull in zip(waiting.tolist(), digests, empty, strict=True):
                    if dull or digest in taken:
                        again.append(row)
                    taken.add(digest)
                waiting = np.array(again, dtype=np.int64)
                if not again:
                    break
        return genes

    def values(self, genes: np.ndarray) -> dict[str, float | int | str]:
        """Return one genome (d,) as a person would write it: ``signal``, the tree, then the further genes."""
        named = super().values(genes)
        further = {name: named[name] for name in self.names[self.max_nodes :]}
        return {"signal": self.vocabulary.text(self.programs(np.asarray(genes)[None])[0]), **further}

    def keys(self, genes: np.ndarray) -> list[bytes]:
        """Return what tells genomes (p, d) apart, 16 bytes each: what they say, not how.

        Two genomes are the same if their trees agree on all :func:`probes` to single precision, so that the
        order of additions does not matter, and their further genes decode to the same values.
        """
        further = np.ascontiguousarray(self.decode(genes)[:, self.max_nodes :])
        return [
            blake2b(digest.tobytes() + row.tobytes(), digest_size=16).digest()
            for digest, row in zip(self.semantics(genes), further, strict=True)
        ]

    def semantics(self, genes: np.ndarray) -> np.ndarray:
        """Return digests, uint64 (p, 2), of what the trees of genes (p, d) say about the probes."""
        programs, k = self.programs(genes), len(self.signals)
        digests = np.empty((len(programs), 2), np.uint64)
        kernels.semantics(programs, probes(k), k, digests)
        return digests

    def _constant_answers(self, genes: np.ndarray) -> np.ndarray:
        programs, k = self.programs(genes), len(self.signals)
        answers = np.empty((N_PROBES, len(programs)))
        kernels.run_programs(programs, probes(k), np.arange(N_PROBES), k, answers)
        return np.ptp(answers, axis=0) < 1e-9

    def _draw(self) -> gp.PrimitiveTree:
        low, high = (min(height, self.max_height) for height in RAMP)
        while True:
            tree = gp.PrimitiveTree(gp.genHalfAndHalf(self.vocabulary.primitives, low, high))
            if len(tree) <= self.max_nodes:
                return tree

    def _genes(self, programs: np.ndarray) -> np.ndarray:
        genes, again = np.empty_like(programs), np.empty_like(programs)
        k = len(self.signals)
        kernels.write_programs(programs, k, genes)
        genes = np.clip(genes, 0.0, 1.0)
        kernels.read_programs(genes, k, self.max_height, again)
        wrong = np.flatnonzero((again != programs).any(axis=1))
        if wrong.size:
            raise ValueError(
                f"program {wrong[0]} is no tree of {self.name}: it is wrongly typed, incomplete, too high or "
                f"larger than {self.max_nodes} nodes"
            )
        return genes
