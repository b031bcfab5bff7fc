"""The loop of a search: ask for genomes, have them evaluated, tell; to be stopped and continued anywhere."""

from collections.abc import Callable
from typing import Any

from ga.controls import ControlPolicy
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.islands import IslandPolicies, Islands
from ga.space import Genome


class Search:
    """A search with all that moves in it; between two steps its state can be saved.

    Parameters
    ----------
    evolution : Evolution or Islands
        New, or stopped between two generations.
    evaluator : Evaluator
    policy : ControlPolicy or IslandPolicies
        Sets the controls of each generation from the progress so far; islands have one policy each.
    """

    def __init__(
        self, evolution: Evolution | Islands, evaluator: Evaluator, policy: ControlPolicy | IslandPolicies
    ) -> None:
        if isinstance(evolution, Islands) != isinstance(policy, IslandPolicies):
            raise TypeError(
                "islands need one policy each, as IslandPolicies, and a single population one policy"
            )
        self.evolution = evolution
        self.evaluator = evaluator
        self.policy = policy

    @property
    def finished(self) -> bool:
        """Whether the evolution is over."""
        return self.evolution.finished

    @property
    def generation(self) -> int:
        """The last generation that was told; -1 before the initial population was."""
        return self.evolution.progress.generation if self._began else -1

    def step(self, before_tell: Callable[[], None] | None = None) -> None:
        """Breed, evaluate and tell one generation.

        Where the fitness rotates over windows, those who live are judged anew on the window of this
        generation first: parents and elites compete with their offspring on equal terms.
        """
        evolution, evaluator = self.evolution, self.evaluator
        generation = self.generation + 1
        controls = None
        if self._began:
            if evaluator.rotates:
                evolution.reassess(evaluator.fitness_of(evolution.population.genes, generation))
            controls = self._controls()
        fitness = evaluator(evolution.ask(controls), generation)
        if before_tell is not None:
            before_tell()
        if isinstance(evolution, Islands):
            evolution.tell(fitness, known=evaluator.known)
        else:
            evolution.tell(fitness, cached=int(evaluator.known.sum()))

    def run(self, on_generation: Callable[["Search"], None] | None = None) -> Genome:
        """Search to the end and return the champion.

        Parameters
        ----------
        on_generation : callable, optional
            Called with the search after every generation, the initial population included.
        """
        while not self.finished:
            self.step()
            if on_generation is not None:
                on_generation(self)
        return self.champion()

    def champion(self) -> Genome:
        """Return the fittest genome ever evaluated.

        Where the fitness rotates it is the fittest of those now living, on all windows together: what was
        best in one window long ago was lucky in that window, more often than not.
        """
        if self.evaluator.rotates:
            self.evolution.reassess(self.evaluator.fitness_of(self.evolution.population.genes, None))
        return self.evolution.champion

    def state(self) -> dict[str, Any]:
        """Return everything the search goes on from: nested dictionaries of arrays and plain values."""
        return {
            "evolution": self.evolution.state(),
            "evaluator": self.evaluator.state(),
            "policy": self.policy.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, bit for bit as the search that was stopped there would have."""
        self.evolution.restore(state["evolution"])
        self.evaluator.restore(state["evaluator"])
        self.policy.restore(state["policy"])

    @property
    def _began(self) -> bool:
        population = self.evolution.population
        return population is not None and bool(population.evaluated.all())

    def _controls(self) -> Any:
        if isinstance(self.policy, IslandPolicies):
            return self.policy.controls_of(self.evolution)
        return self.policy.controls(self.evolution.progress)


def search(
    evolution: Evolution | Islands,
    evaluator: Evaluator,
    policy: ControlPolicy | IslandPolicies,
    on_generation: Callable[[Evolution | Islands], None] | None = None,
) -> Genome:
    """Run a search to its end and return the champion; see :class:`Search`.

    Parameters
    ----------
    evolution : Evolution or Islands
    evaluator : Evaluator
    policy : ControlPolicy or IslandPolicies
    on_generation : callable, optional
        Called with the evolution after every generation, the initial population included.
    """
    watch = None if on_generation is None else lambda search: on_generation(search.evolution)
    return Search(evolution, evaluator, policy).run(watch)
