"""Many runs of the genetic algorithm side by side, as the environment that a conductor learns in.

A run has the bits of the same run in ``ga``: same task, same seed, same controls, same populations. All
that a batch remembers is arrays, all that is random in a run comes from the seed of its task, and the work
on runs is compiled and spread over threads; so a run has the same bytes alone, in any batch, and on any
number of threads.

Shapes: ``B`` runs, ``g`` generations of the longest (its initial population not counted), ``k`` statistics.
"""

import ctypes
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from compute.workers import Mapper, RayMapper, ThreadMapper
from conductor import environment_kernels as kernels
from conductor.environment_kernels import Runs
from conductor.landscapes import FAMILIES
from conductor.objective import Outcome
from conductor.tasks import Instance, Task
from ga.controls import CONTROL_NAMES, CONTROL_RANGES
from ga.progress import STATISTIC_NAMES
from ga.space import KINDS, GenomeSpace
from ga.variation import MUTATIONS, RECOMBINATIONS, Variation

#: Generations without improvement after which ``restart_fraction`` acts, as ``ga`` has it without patience.
STAGNATION_GUARD = 10
#: Chunks of runs per thread and call: short runs wait for long ones no more than that.
_CHUNKS = 4

_LOW = np.array([limits.low for limits in CONTROL_RANGES.values()])
_HIGH = np.array([limits.high for limits in CONTROL_RANGES.values()])
_SHOWN = [
    CONTROL_NAMES.index(name.removeprefix("control_"))
    for name in STATISTIC_NAMES
    if name.startswith("control_")
]
#: Fields of ``Runs`` by what a run has of them: rows of p, genes of p * d, or rows of its own.
_PER_ROW = ("fitness", "age", "order", "told", "places", "parents", "defended", "operator", "weight", "rate")
_PER_GENE = ("genes", "replaced", "children")
_PER_RUN = ("streams", "counts", "spread", "trials", "successes", "successful")
_PER_GENERATION = ("history", "best", "asked")
if len(STATISTIC_NAMES) != kernels.N_STATISTICS or len(_SHOWN) != kernels.N_SHOWN:
    raise TypeError("conductor.environment_kernels writes other statistics than ga.progress names")

#: Opens a task that is no landscape: its space, and ``genes (m, d) -> fitness (m,)``, higher is better,
#: deterministic for each genome whatever stands beside it, and safe to call from several threads. Tasks with
#: the same problem and dimension have the same fitness.
Opening = Callable[[Task], tuple[GenomeSpace, Callable[[np.ndarray], np.ndarray]]]


class Policy(Protocol):
    """Sets the controls of a whole batch, once per generation."""

    def __call__(self, states: np.ndarray, environment: "Environment") -> np.ndarray:
        """Return the controls, float64 (B, 12), in natural units.

        Parameters
        ----------
        states : float64 (B, k)
            Statistics of the last generation of each run, in the order of ``ga.progress.STATISTIC_NAMES``.
            Of a run that is over, its last; the controls of such a run are not read.
        environment : Environment
            For what has no place in one generation: ``history``, ``trials``, ``successes``, ``successful``.
        """
        ...


class _Stream:
    """A generator whose state can be exchanged in compiled code: the code of one, lent to many runs."""

    def __init__(self) -> None:
        bits = np.random.PCG64(0)
        self.generator = np.random.Generator(bits)
        self.state = _state_of(bits)
        words = [
            number >> shift & (2**64 - 1) for number in bits.state["state"].values() for shift in (0, 64)
        ]
        if sorted(self.state.tolist()) != sorted(words):
            raise RuntimeError(
                f"NumPy {np.__version__} keeps the state of its PCG64 generator elsewhere than expected; "
                "the environment needs another version of NumPy"
            )


def _state_of(bits: np.random.PCG64) -> np.ndarray:
    # A view of the memory in which the generator keeps its 128 bits of state and 128 of increment: the first
    # word of what NumPy hands to compiled callers is their address.
    address = ctypes.c_void_p.from_address(bits.ctypes.state_address).value
    return np.ctypeslib.as_array((ctypes.c_uint64 * 4).from_address(address))


@functools.cache
def _threads() -> ThreadMapper:
    """Return the threads of all environments that were given no mapper: batches come and go."""
    return ThreadMapper()


def _streams(seeds: Sequence[int]) -> np.ndarray:
    """Return the state, uint64 (B, 4), that ``np.random.default_rng(seed)`` begins with."""
    states = np.empty((len(seeds), 4), dtype=np.uint64)
    for row, seed in zip(states, seeds, strict=True):
        bits = np.random.PCG64(seed)
        row[:] = _state_of(bits)
    return states


class Environment:
    """A batch of runs, bred generation by generation with the controls that a policy hands in.

    Takes about 100 kB per run of 40 individuals, 60 generations and 10 genes, mostly the table of genomes
    already evaluated.

    Parameters
    ----------
    tasks : sequence of Task
        Of any mixture of sizes; all have the same generation at the same time, and shorter ones end earlier.
    variation : Variation, optional
        Which operators stand behind the controls, as in ``ga``.
    stagnation_guard : int
        As in ``ga.evolution.Evolution``.
    opening : callable, optional
        Opens tasks that are no landscapes; called once for each, and once more for each fork of it.
    mapper : Mapper, optional
        Works on the runs in this process: threads by default, one per core. The caller closes it.

    Raises
    ------
    ValueError
        If there is no task, a task cannot be opened, or its space does not fit.
    TypeError
        If the mapper is one of other processes.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        variation: Variation | None = None,
        stagnation_guard: int = STAGNATION_GUARD,
        opening: Opening | None = None,
        mapper: Mapper | None = None,
    ) -> None:
        if len(tasks) == 0:
            raise ValueError("an environment was given no tasks; it needs at least one")
        if stagnation_guard < 1:
            raise ValueError(f"stagnation_guard is {stagnation_guard}; it must be at least 1 generation")
        if isinstance(mapper, RayMapper):
            raise TypeError(
                "the mapper of an environment is Ray; runs share arrays, so it must be threads or serial"
            )
        self.tasks = tuple(tasks)
        self.variation = Variation() if variation is None else variation
        self.stagnation_guard = stagnation_guard
        self._opening = opening
        self._mapper = _threads() if mapper is None else mapper
        # Of runs that are no landscapes. Runs on the same genes of the same problem are evaluated together:
        # a fitness that answers hundreds of genomes at once takes a fraction of the time per genome.
        self._fitness: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
        self._alike: dict[tuple[Any, int], list[int]] = {}
        self._runs = self._arrays()
        self._asked_for = np.full((len(self.tasks), len(CONTROL_NAMES)), np.nan)
        self._start()
        pieces = min(len(self.tasks), _CHUNKS * self._mapper.n_workers)
        cuts = np.linspace(0, len(self.tasks), pieces + 1).astype(np.int64).tolist()
        self._chunks = [(_Stream(), *cut) for cut in itertools.pairwise(cuts)]

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def generation(self) -> int:
        """The last generation of the longest run; -1 before the initial populations are evaluated."""
        return int(self._runs.counts[:, kernels.GENERATION].max())

    @property
    def finished(self) -> np.ndarray:
        """Which runs are over, bool (B,)."""
        return self._runs.counts[:, kernels.GENERATION] >= self._runs.shape[:, kernels.GENERATIONS]

    @property
    def states(self) -> np.ndarray:
        """Statistics of the last generation of each run, float64 (B, k), a copy."""
        last = np.maximum(self._runs.counts[:, kernels.GENERATION], 0)
        return self._runs.history[np.arange(len(self)), last]

    @property
    def history(self) -> np.ndarray:
        """Statistics of all generations so far, float64 (B, generation + 1, k), read-only."""
        return _seen(self._runs.history[:, : self.generation + 1])

    @property
    def best(self) -> np.ndarray:
        """Best fitness after each generation so far, float64 (B, generation + 1), read-only."""
        return _seen(self._runs.best[:, : self.generation + 1])

    @property
    def asked(self) -> np.ndarray:
        """Genomes evaluated in each generation so far, int64 (B, generation + 1), read-only."""
        return _seen(self._runs.asked[:, : self.generation + 1])

    @property
    def controls(self) -> np.ndarray:
        """The controls of the last generation of each run, float64 (B, 12), read-only; NaN before any.

        In natural units and inside their ranges. Of a run that is over, whatever was last handed in.
        """
        return _seen(self._asked_for)

    @property
    def trials(self) -> np.ndarray:
        """Offspring by each of ``ga.progress.OPERATORS`` in the last generation, int64 (B, 4)."""
        return _seen(self._runs.trials)

    @property
    def successes(self) -> np.ndarray:
        """Those of them that are fitter than their parent, int64 (B, 4)."""
        return _seen(self._runs.successes)

    @property
    def successful(self) -> np.ndarray:
        """Lehmer means of successful F and CR in the last generation, float64 (B, 2), NaN without any."""
        return _seen(self._runs.successful)

    def population(self, b: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return copies of the genes (p, d), fitness (p,) and age (p,) of run ``b``."""
        shape = self._runs.shape[b]
        p, d, row, gene = shape[[kernels.P, kernels.D, kernels.ROW, kernels.GENE]].tolist()
        genes = self._runs.genes[gene : gene + p * d].reshape(p, d)
        return genes.copy(), self._runs.fitness[row : row + p].copy(), self._runs.age[row : row + p].copy()

    def reset(self) -> None:
        """Go back to the start of all runs."""
        for name in ("slots", *_PER_RUN, *_PER_GENERATION):
            getattr(self._runs, name)[...] = 0
        self._asked_for[:] = np.nan
        self._start()

    def step(self, controls: ArrayLike | None = None) -> np.ndarray:
        """Breed, evaluate and complete one generation of every run that is not over; return ``states``.

        Parameters
        ----------
        controls : float64 (B, 12), optional
            In natural units, clipped into their ranges. The initial population, the first step, needs none.

        Raises
        ------
        ValueError
            If controls are missing, of another shape or not numbers, or an opened task answers anything but
            one number below infinity per genome.
        RuntimeError
            If an opened task failed before; :meth:`reset` starts anew.
        """
        if self.generation < 0:
            self._advance(np.zeros((1, len(self), len(CONTROL_NAMES))), 1)
        else:
            controls = self._controls(controls, 2)
            self._asked_for[:] = controls
            self._advance(controls[None], 1)
        return self.states

    def run(self, policy: Policy) -> Outcome:
        """Run from where the runs are to their ends, asking the policy for the controls of each generation.

        Parameters
        ----------
        policy : callable
            Called with linear algebra on one thread: the threads of a library would wait for their next
            product by turning round and round on the cores that breed meanwhile.
        """
        from threadpoolctl import threadpool_limits

        if self.generation < 0:
            self.step()
        with threadpool_limits(1, user_api="blas"):
            while not self.finished.all():
                self.step(policy(self.states, self))
        return self.outcome()

    def run_fixed(self, controls: ArrayLike) -> Outcome:
        """Run to the ends with controls that are known beforehand, without a stop between generations.

        Parameters
        ----------
        controls : float64 (12,), (B, 12) or (t, B, 12)
            For all, for each run, or for each of the next ``t`` generations, of which the last goes on.
        """
        controls = np.asarray(controls, dtype=np.float64)
        if controls.ndim == 1:
            controls = np.broadcast_to(controls, (len(self), *controls.shape))
        controls = self._controls(controls if controls.ndim == 3 else controls[None], 3)
        self._asked_for[:] = controls[-1]
        self._advance(controls, self._runs.best.shape[1])
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return what the runs have shown, copied.

        Raises
        ------
        RuntimeError
            If a run is not over.
        """
        if not self.finished.all():
            open_runs = int((~self.finished).sum())
            raise RuntimeError(
                f"outcome() was called with {open_runs} of {len(self)} runs unfinished; run() first"
            )
        best = self._runs.best.copy()
        ends = self._runs.shape[:, kernels.GENERATIONS]
        after = np.arange(best.shape[1]) > ends[:, None]
        best[after] = np.broadcast_to(best[np.arange(len(self)), ends][:, None], best.shape)[after]
        return Outcome(self.tasks, best, self._runs.asked.copy(), self._runs.history.copy())

    def fork(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> "Environment":
        """Return a new environment whose runs go on from where these runs are; a row may occur many times.

        Parameters
        ----------
        rows : sequence of int
            Which runs.
        seeds : sequence of int, optional
            New random streams from here on. Without them copies of a run draw the same numbers, so that
            they differ by their controls alone.

        Raises
        ------
        ValueError
            If there is not one seed per row.
        """
        rows = [range(len(self))[row] for row in rows]
        if seeds is not None and len(seeds) != len(rows):
            raise ValueError(f"{len(seeds)} seeds are given for {len(rows)} forked runs; each needs one")
        other = Environment(
            [self.tasks[row] for row in rows],
            variation=self.variation,
            stagnation_guard=self.stagnation_guard,
            opening=self._opening,
            mapper=self._mapper,
        )
        old, new = self._runs, other._runs
        for name in _PER_RUN:
            getattr(new, name)[:] = getattr(old, name)[rows]
        other._asked_for[:] = self._asked_for[rows]
        width = new.best.shape[1]
        for name in _PER_GENERATION:
            getattr(new, name)[:] = getattr(old, name)[rows, :width]
        for to, row in enumerate(rows):
            p, d, g, n_slots = old.shape[row, [kernels.P, kernels.D, kernels.GENERATIONS, kernels.N_SLOTS]]
            for names, column, size in (
                (_PER_ROW, kernels.ROW, p),
                (_PER_GENE, kernels.GENE, p * d),
                (("seen",), kernels.DIGEST, p * (g + 1)),
                (("slots",), kernels.SLOT, n_slots),
            ):
                source, target = old.shape[row, column], new.shape[to, column]
                for name in names:
                    part = getattr(old, name)[source : source + size]
                    getattr(new, name)[target : target + size] = part
        if seeds is not None:
            new.streams[:] = _streams(seeds)
        return other

    def _arrays(self) -> Runs:
        n, longest = len(self.tasks), max(task.n_generations for task in self.tasks)
        shape = np.zeros((n, 14), dtype=np.int64)
        low, high, kind, table, parameters = [], [], [], [], []
        total = dict.fromkeys(("row", "gene", "digest", "slot", "bound", "table", "parameter"), 0)
        for b, task in enumerate(self.tasks):
            p, d = task.population_size, task.dimension
            family, constants = -1, np.empty(0)
            bounds = np.zeros(d), np.ones(d), np.zeros(d, dtype=np.int8), np.zeros((d, 1))
            if isinstance(task.problem, Instance):
                family, constants = FAMILIES.index(task.problem.family), task.landscape().parameters
            else:
                bounds = self._open(b, task)
            n_slots = 1 << int(1.5 * task.budget).bit_length()  # at most two thirds are ever taken
            shape[b] = (
                *(p, d, task.n_generations, total["row"], total["gene"], total["digest"], total["slot"]),
                *(n_slots, total["bound"], total["table"], bounds[3].shape[1], total["parameter"]),
                *(constants.size, family),
            )
            for values, value in zip((low, high, kind, table, parameters), (*bounds, constants), strict=True):
                values.append(value.ravel())
            sizes = p, p * d, task.budget, n_slots, d, bounds[3].size, constants.size
            for name, size in zip(total, sizes, strict=True):
                total[name] += size
        rows, genes = total["row"], total["gene"]
        variation = self.variation
        return Runs(
            shape=shape,
            options=np.array(
                [
                    RECOMBINATIONS.index(variation.recombination),
                    MUTATIONS.index(variation.mutation),
                    variation.jitter,
                    variation.archive,
                    self.stagnation_guard,
                ],
                dtype=np.int64,
            ),
            rotation=np.array([variation.rotation]),
            low=np.concatenate(low),
            high=np.concatenate(high),
            kind=np.concatenate(kind),
            table=np.concatenate(table),
            parameters=np.concatenate(parameters),
            streams=np.empty((n, 4), dtype=np.uint64),
            counts=np.zeros((n, 11), dtype=np.int64),
            spread=np.zeros(n),
            genes=np.zeros(genes),
            fitness=np.zeros(rows),
            age=np.zeros(rows, dtype=np.int32),
            order=np.zeros(rows, dtype=np.int64),
            replaced=np.zeros(genes),
            seen=np.zeros((total["digest"], 2), dtype=np.uint64),
            slots=np.zeros(total["slot"], dtype=np.int64),
            children=np.zeros(genes),
            told=np.zeros(rows),
            places=np.zeros(rows, dtype=np.int64),
            parents=np.zeros(rows, dtype=np.int64),
            defended=np.zeros(rows, dtype=np.bool_),
            operator=np.zeros(rows, dtype=np.int8),
            weight=np.zeros(rows),
            rate=np.zeros(rows),
            history=np.zeros((n, longest + 1, len(STATISTIC_NAMES))),
            best=np.zeros((n, longest + 1)),
            asked=np.zeros((n, longest + 1), dtype=np.int64),
            trials=np.zeros((n, 4), dtype=np.int64),
            successes=np.zeros((n, 4), dtype=np.int64),
            successful=np.zeros((n, 2)),
        )

    def _start(self) -> None:
        self._runs.counts[:, kernels.GENERATION] = -1
        self._runs.streams[:] = _streams([task.seed for task in self.tasks])

    def _open(self, b: int, task: Task) -> tuple[np.ndarray, ...]:
        if self._opening is None:
            raise ValueError(
                f"task {b} is a window of {task.problem.symbol}; opening= must say how to open it"
            )
        space, self._fitness[b] = self._opening(task)
        self._alike.setdefault((task.problem, task.dimension), []).append(b)
        if space.n_genes != task.dimension:
            raise ValueError(f"task {b} has dimension {task.dimension}; its space has {space.n_genes} genes")
        if type(space).decode is not GenomeSpace.decode or type(space).keys is not GenomeSpace.keys:
            raise ValueError(
                f"task {b} has the space {space.name}, which decodes by itself; it must be a plain one"
            )
        options = [len((space.choices or {}).get(gene, ())) for gene in space.names]
        table = np.zeros((space.n_genes, max([1, *options])))
        for j, gene in enumerate(space.names):
            if options[j]:
                numeric = not isinstance(space.choices[gene][0], str)
                table[j, : options[j]] = space.choices[gene] if numeric else range(options[j])
        kind = np.array([KINDS.index(k) for k in space.kind], dtype=np.int8)
        return np.asarray(space.low), np.asarray(space.high), kind, table

    def _controls(self, controls: Any, ndim: int) -> np.ndarray:
        n, width = len(self), len(CONTROL_NAMES)
        if controls is None:
            raise ValueError("step() was called without controls; every generation but the first needs them")
        controls = np.asarray(controls, dtype=np.float64)
        if controls.ndim != ndim or controls.shape[-2:] != (n, width) or controls.size == 0:
            raise ValueError(f"controls have shape {controls.shape}; {n} runs need ({n}, {width})")
        if np.isnan(controls).any():
            *_, run, control = np.argwhere(np.isnan(controls))[0].tolist()
            raise ValueError(f"{CONTROL_NAMES[control]} of run {run} is NaN; controls must be numbers")
        # clip keeps the order of its operand in memory, and compiled code is for one order
        return np.ascontiguousarray(np.clip(controls, _LOW, _HIGH))

    def _advance(self, controls: np.ndarray, n_generations: int) -> None:
        shown = _places(controls)
        runs = self._runs
        if not self._fitness:
            self._spread(lambda *piece: kernels.step(*piece[:3], controls, shown, n_generations, *piece[3:]))
            return
        if runs.counts[:, kernels.ASKED].any():
            raise RuntimeError(
                "a task failed in this generation and runs stand still within it; reset() first"
            )
        used = 0
        for _ in range(n_generations):
            if self.finished.all():
                return
            t = min(used, len(controls) - 1)
            used += self.generation >= 0
            now, places = controls[t], shown[t]
            self._spread(lambda *piece, now=now: kernels.ask(*piece[:3], now, *piece[3:]))
            live = [[b for b in alike if runs.counts[b, kernels.ASKED]] for alike in self._alike.values()]
            self._mapper.map(self._evaluate, [alike for alike in live if alike])
            self._spread(
                lambda *piece, now=now, places=places: kernels.tell(*piece[:3], now, places, *piece[3:])
            )

    def _spread(self, work: Callable[..., None]) -> None:
        self._mapper.map(
            lambda chunk: work(self._runs, chunk[0].generator, chunk[0].state, *chunk[1:]), self._chunks
        )

    def _evaluate(self, alike: list[int]) -> None:
        runs, parts = self._runs, []
        for b in alike:
            d, gene = runs.shape[b, [kernels.D, kernels.GENE]].tolist()
            m = int(runs.counts[b, kernels.ASKED])
            parts.append(runs.children[gene : gene + m * d].reshape(m, d))
        genes = np.concatenate(parts)
        fitness = np.asarray(self._fitness[alike[0]](genes), dtype=np.float64)
        if fitness.shape != (len(genes),):
            raise ValueError(
                f"fitness of task {alike[0]} has shape {fitness.shape}; {len(genes)} genomes need "
                f"({len(genes)},)"
            )
        if (fitness == np.inf).any():
            raise ValueError(
                f"fitness of task {alike[0]} is +inf; nothing could ever be better, so it is an error"
            )
        begin = 0
        for b, part in zip(alike, parts, strict=True):
            row = int(runs.shape[b, kernels.ROW])
            runs.told[row : row + len(part)] = fitness[begin : begin + len(part)]
            begin += len(part)


def _places(controls: np.ndarray) -> np.ndarray:
    # Places in their ranges of the controls that statistics show, with the bits of GAControls.to_unit().
    places = np.empty((*controls.shape[:-1], len(_SHOWN)))
    for i, control in enumerate(_SHOWN):
        value, low, high = np.ascontiguousarray(controls[..., control]), _LOW[control], _HIGH[control]
        if CONTROL_RANGES[CONTROL_NAMES[control]].scale == "log":
            # The initial populations have no controls, and theirs are not read.
            places[..., i] = np.log(np.maximum(value, low) / low) / np.log(high / low)
        else:
            places[..., i] = (value - low) / (high - low)
    return places


def _seen(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
