"""Who is in a race by name, and what the rivals have to learn before it begins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compute.seeds import stream
from compute.workers import Mapper
from conductor import outside
from conductor.ablations import (
    Conducted,
    Habits,
    Untrained,
    habits,
    shuffled,
    without_market,
    without_population,
)
from conductor.adaptive import Bandit, OneFifth, SuccessHistory
from conductor.contestants import (
    DEAP_VARIATION,
    PYMOO_VARIATION,
    Contestant,
    Fixed,
    RandomControl,
    Schedule,
    Scheduled,
    Steered,
    deap_defaults,
    pymoo_defaults,
    tuned_schedule,
)
from conductor.curriculum import Batch, Shifted, Source
from conductor.static_tuning import StaticTuningConfig
from conductor.steering import Steering
from configs.load import ConfigError, did_you_mean
from ga.adaptive_policies import BanditConfig, OneFifthConfig, SuccessHistoryConfig
from ga.controls import CONTROL_NAMES, RUGGED, SMOOTH, GAControls
from ga.variation import Variation

if TYPE_CHECKING:
    from conductor.model import Conductor

#: The controls that a conductor steers around, and what it is measured against.
REFERENCE = "tuned static"
#: The conductor that is judged.
SUBJECT = "conductor"
#: Under which key of its story a conductor may carry a schedule that was tuned with it.
SCHEDULE = "schedule"
_SCHEDULED_FROM = 4_000_000  # batches by number that no step of a training asks for
_PRACTICED_FROM = 5_000_000


@dataclass(eq=False)
class Practice:
    """What rivals learn from tasks that the race does not hold; each thing once, when first asked for.

    Parameters
    ----------
    conductor : Conductor
    source : Source
        Training tasks.
    config : StaticTuningConfig
        How the schedule is tuned.
    n_runs : int
        Runs that the habits of the conductor are measured on.
    seed : int
    mapper : Mapper
    told : callable, optional
        ``told(what, done, total)``.
    """

    conductor: "Conductor"
    source: Source
    config: StaticTuningConfig
    n_runs: int
    seed: int
    mapper: Mapper
    told: Callable[[str, int, int], None] | None = None
    _habits: Habits | None = field(default=None, repr=False)
    _schedule: Schedule | None = field(default=None, repr=False)

    def habits(self) -> Habits:
        """Return what the conductor does on average."""
        if self._habits is None:
            batch = self.source.batch(_PRACTICED_FROM, self.n_runs)
            self._habits = habits(self.conductor, batch, self.mapper)
        return self._habits

    def schedule(self) -> Schedule:
        """Return the tuned schedule: that of the conductor's own story, or one tuned here."""
        if self._schedule is None:
            told = self.told
            saved = self.conductor.story.get(SCHEDULE)
            self._schedule = (
                Schedule.from_dict(saved)
                if saved
                else tuned_schedule(
                    Shifted(self.source, _SCHEDULED_FROM),
                    self.conductor.steering,
                    self.conductor.variation,
                    self.config,
                    seed=self.seed,
                    mapper=self.mapper,
                    told=None if told is None else lambda done, total: told("tuned schedule", done, total),
                )
            )
        return self._schedule

    def learned(self) -> dict[str, object]:
        """Return what was learned, plain values by control, to be kept with the race."""
        found: dict[str, object] = {}
        if self._schedule is not None:
            found["tuned schedule"] = self._schedule.to_dict()
        if self._habits is not None:
            found["frozen mean action"] = self._habits.mean.to_dict()
            found["frozen mean schedule"] = self._habits.schedule.to_dict()
            found["logit spread"] = dict(zip(CONTROL_NAMES, self._habits.spread.tolist(), strict=True))
        return found


def _one_fifth(steering: Steering, batch: Batch) -> OneFifth:
    return OneFifth(len(batch), OneFifthConfig(**steering.controls.to_dict()))


def _bandit(steering: Steering, batch: Batch) -> Bandit:
    return Bandit(len(batch), BanditConfig(**steering.controls.to_dict()))


def _success_history(steering: Steering, batch: Batch) -> SuccessHistory:
    return SuccessHistory(len(batch), SuccessHistoryConfig(**steering.controls.to_dict()))


def _jittered(variation: Variation) -> Variation:
    # Without it all children of a generation have one F and one CR, and success has nothing to choose from.
    return variation.model_copy(update={"jitter": True, "archive": True})


#: Rivals by name, in the order of reports: name, conductor, practice, seed -> contestant.
RIVALS: Mapping[str, Callable[[str, "Conductor", Practice, int], Contestant]] = {
    "tuned schedule": lambda n, c, p, s: Scheduled(n, p.schedule()),
    "frozen mean schedule": lambda n, c, p, s: Scheduled(n, p.habits().schedule),
    "frozen mean action": lambda n, c, p, s: Scheduled(n, p.habits().mean),
    "shuffled features": lambda n, c, p, s: Conducted(n, c, shuffled(s)),
    "without market features": lambda n, c, p, s: Conducted(n, c, without_market),
    "without population features": lambda n, c, p, s: Conducted(n, c, without_population),
    "untrained network": lambda n, c, p, s: Untrained(n, c, s),
    "random around tuned": lambda n, c, p, s: RandomControl(n, c.steering, p.habits().spread, s),
    "random control": lambda n, c, p, s: RandomControl(n, seed=s),
    "one-fifth rule": lambda n, c, p, s: Steered(n, lambda batch: _one_fifth(c.steering, batch)),
    "success history": lambda n, c, p, s: Steered(
        n, lambda batch: SuccessHistory(len(batch), SuccessHistoryConfig()), _jittered
    ),
    "success history on tuned": lambda n, c, p, s: Steered(
        n, lambda batch: _success_history(c.steering, batch), _jittered
    ),
    "bandit": lambda n, c, p, s: Steered(n, lambda batch: _bandit(c.steering, batch)),
    "shipped defaults": lambda n, c, p, s: Fixed(n, lambda task: GAControls(), Variation()),
    "shipped smooth": lambda n, c, p, s: Fixed(n, lambda task: SMOOTH, Variation()),
    "shipped rugged": lambda n, c, p, s: Fixed(n, lambda task: RUGGED, Variation()),
    "DEAP defaults": lambda n, c, p, s: Fixed(n, deap_defaults, DEAP_VARIATION),
    "pymoo defaults": lambda n, c, p, s: Fixed(n, pymoo_defaults, PYMOO_VARIATION),
    "random search": lambda n, c, p, s: outside.Outside(n, outside.random_search, s),
    "differential evolution": lambda n, c, p, s: outside.Outside(n, outside.differential_evolution, s),
    "CMA-ES": lambda n, c, p, s: outside.Outside(n, outside.cma_es, s),
}


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of rivals as they are written here, in the order of ``RIVALS``; all for none.

    Small and capital letters, spaces, dashes and underscores are not told apart.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    known = {_folded(name): name for name in RIVALS}
    always = {_folded(REFERENCE), _folded(SUBJECT)}
    for name in names:
        if _folded(name) not in known and _folded(name) not in always:
            raise ConfigError(f"no contestant named {name!r}{did_you_mean(name, list(RIVALS))}")
    wanted = {known.get(_folded(name)) for name in names} if names else set(RIVALS)
    return tuple(name for name in RIVALS if name in wanted)


def lineup(
    names: Sequence[str], practice: Practice, seed: int, *, further: Sequence[Contestant] = ()
) -> list[Contestant]:
    """Return the contestants of a race: the reference, the conductor, further ones, and rivals by name."""
    conductor = practice.conductor
    return [
        Fixed.at(REFERENCE, conductor.steering.controls),
        Conducted(SUBJECT, conductor),
        *further,
        *(
            RIVALS[name](name, conductor, practice, int(stream(seed, "rival", name).integers(2**31)))
            for name in names
        ),
    ]


def _folded(name: str) -> str:
    return name.casefold().replace("-", " ").replace("_", " ").strip()
