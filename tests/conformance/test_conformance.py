"""The house laws, applied to everything registered. A new plugin is covered without a line in this file.

Each law has planted violators: a law that cannot fail proves nothing.
"""

import importlib
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import annotated_types
import numpy as np
import pydantic
import pytest

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import simulate
from backtest.venue import Venue
from compute.seeds import stream
from configs.load import Config, ConfigError, PluginConfig
from configs.registry import Registry
from ga.controls import CONTROL_RANGES, POLICIES, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.space import Genome, GenomeSpace
from market.bars import Bars
from market.causal import transform
from market.features.feature import FEATURES
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.scaling import Scaler
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.detector import DETECTORS, load_detector
from regimes.path import PathFilter
from specialists.family import FAMILIES
from specialists.fitness import Fitness, FitnessConfig
from specialists.specialist import Specialist, awake_rows, decision_rows
from tests.conformance.laws import (
    POISONS,
    check_altered_future,
    check_chunk_law,
    check_finite_after_warmup,
    check_inputs_untouched,
)
from tests.house.tree import shipped

N = 6_000
TRAIN = slice(2_000, 4_800)
#: Kinds whose plugins, made into a stage by :func:`stage_of`, obey the laws of flow.
FLOWING = {"feature": FEATURES, "detector": DETECTORS, "family": FAMILIES}
STAGES = [(kind, name) for kind, registry in FLOWING.items() for name in registry.names()]
#: Kinds with laws of their own: policies and variants below, sources and forecasters in their tests.
OTHERS = {"blender", "forecaster", "policy", "series source", "source", "variant"}


@cache
def registries() -> dict[str, Registry]:
    """Every registry of the house, by kind."""
    found = {}
    for module in shipped():
        if "Registry" in module.text:
            values = vars(importlib.import_module(module.name)).values()
            found.update({value.kind: value for value in values if isinstance(value, Registry)})
    return found


PLUGINS = [(kind, name) for kind, registry in sorted(registries().items()) for name in registry.names()]


# The ground everything stands on


@cache
def bars() -> Bars:
    return synthetic_market(SyntheticConfig(n_bars=N, seed=5)).bars


@cache
def features() -> Table:
    return transform(FeaturePipeline(), bars())


@cache
def labels() -> Table:
    return transform(PathFilter(), transform(stage_of("detector", "volatility")[0], features()))


@cache
def scaler(signals: tuple[str, ...]) -> Scaler | None:
    return Scaler.fit(features()[TRAIN].select(signals)) if signals else None


@cache
def stage_of(kind: str, name: str) -> tuple[object, tuple[Table, ...]]:
    """A plugin with its default settings as a stage, fitted where it is fitted, and tables for it."""
    if kind == "feature":
        return FeaturePipeline(FeaturesConfig(names=(name,))), (bars(),)
    if kind == "detector":
        return DETECTORS.create(name).fit(features()[TRAIN]), (features(),)
    rows = slice(TRAIN.stop, N)
    return specialist(name), (bars()[rows], features()[rows], labels()[rows])


def specialist(name: str, seed: int = 3) -> Specialist:
    """A genome of a family that trades in every regime; drawn until it does trade."""
    family = FAMILIES.create(name)
    for attempt in range(50):
        genes = family.space.sample(stream(seed, "genes", attempt), 1)[0]
        made = Specialist(
            family,
            Genome(genes, family.space.name),
            None,
            scaler(family.signals),
            RiskLimits(),
            int(features().time[TRAIN.stop - 1]),
        )
        rows = slice(TRAIN.stop, N)
        exposure = transform(made, bars()[rows], features()[rows], labels()[rows]).column("exposure")
        if np.count_nonzero(np.diff(exposure)) > 10:
            return made
    raise AssertionError(f"family {name}: no genome of 50 trades; the laws would prove nothing")


def tail(tables: Sequence[Table], n: int) -> tuple[Table, ...]:
    return tuple(table[len(table) - n :] for table in tables)


# Laws of flow


@pytest.mark.parametrize(("kind", "name"), STAGES)
def test_cutting_the_input_anywhere_changes_no_bit(kind, name):
    stage, tables = stage_of(kind, name)
    n = len(tables[0])
    cuts = np.random.default_rng(n).integers(0, n, 15).tolist()
    check_chunk_law(stage, tables, [0, 1, 2, n - 1, n, *cuts, *range(cuts[0], min(n, cuts[0] + 20))])


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
@pytest.mark.parametrize(("kind", "name"), STAGES)
def test_altering_the_future_changes_nothing_before_it(kind, name, poison):
    stage, tables = stage_of(kind, name)
    check_altered_future(stage, tables, 2 * len(tables[0]) // 3, poison)


@pytest.mark.parametrize(("kind", "name"), STAGES)
def test_two_runs_are_equal_and_leave_their_input_alone(kind, name):
    check_inputs_untouched(*stage_of(kind, name))


@pytest.mark.parametrize("name", FEATURES.names())
def test_a_feature_is_finite_after_its_warm_up(name):
    check_finite_after_warmup(*stage_of("feature", name))


class Faulty:
    """A sound stage with one fault planted."""

    runs = 0

    def __init__(self, stage, fault: str) -> None:
        self._stage, self._fault = stage, fault
        self.warmup = stage.warmup
        Faulty.runs += 1
        self._run = Faulty.runs

    def fresh(self):
        return Faulty(self._stage.fresh(), self._fault)

    def update(self, *new: Table) -> Table:
        if self._fault == "forgets":
            self._stage = self._stage.fresh()
        rows = self._stage.update(*new)
        values = rows.values.copy()
        if self._fault == "peeks" and len(values) > 1:
            values[:-1] = values[1:]
        if self._fault == "centers":
            values -= np.nanmean(values, axis=0) if np.isfinite(values).any() else 0.0
        if self._fault == "moods":
            values += self._run
        if self._fault == "breaks":
            values[self.warmup + 1 :] = np.inf
        return Table(rows.time, values, rows.names)


SAMPLES = [("feature", "ema_gap_8_24"), ("detector", "volatility"), ("family", "blend")]


@pytest.mark.parametrize("fault", ["forgets", "peeks", "centers"])
@pytest.mark.parametrize(("kind", "name"), SAMPLES)
def test_the_chunk_law_sees_a_stage_that(kind, name, fault):
    stage, tables = stage_of(kind, name)
    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(Faulty(stage, fault), tables, range(0, len(tables[0]), 25))


@pytest.mark.parametrize("fault", ["peeks", "centers"])
@pytest.mark.parametrize(("kind", "name"), SAMPLES)
def test_the_altered_future_shows_a_stage_that(kind, name, fault):
    stage, tables = stage_of(kind, name)
    with pytest.raises(AssertionError, match="altered"):
        check_altered_future(Faulty(stage, fault), tables, 2 * len(tables[0]) // 3, POISONS["times 1000"])


def test_moods_and_infinities_are_seen():
    stage, tables = stage_of(*SAMPLES[0])
    with pytest.raises(AssertionError, match="second run"):
        check_inputs_untouched(Faulty(stage, "moods"), tables)
    with pytest.raises(AssertionError, match="inf"):
        check_finite_after_warmup(Faulty(stage, "breaks"), tables)


# Save and load


def same_answers(one, two, tables: Sequence[Table]) -> bool:
    before, after = transform(one, *tables), transform(two, *tables)
    return before.names == after.names and before.values.tobytes() == after.values.tobytes()


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", DETECTORS.names())
def test_a_loaded_detector_answers_like_the_saved_one(name, tmp_path):
    detector, tables = stage_of("detector", name)
    detector.save(tmp_path / "one")
    again = load_detector(tmp_path / "one")
    assert type(again) is type(detector)
    assert again.fitted_until == detector.fitted_until == features().time[TRAIN.stop - 1]
    assert same_answers(detector, again, tail(tables, 500))
    again.save(tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


@pytest.mark.parametrize("name", DETECTORS.names())
def test_fitting_twice_gives_the_same_bytes(name, tmp_path):
    stage_of("detector", name)[0].save(tmp_path / "one")
    DETECTORS.create(name).fit(features()[TRAIN]).save(tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    # Negative control: other rows give other bytes, and other answers.
    other = DETECTORS.create(name).fit(features()[TRAIN.start : TRAIN.stop - 500])
    other.save(tmp_path / "three")
    assert files_of(tmp_path / "one") != files_of(tmp_path / "three")
    assert not same_answers(stage_of("detector", name)[0], other, (features()[-500:],))


@pytest.mark.parametrize("name", FAMILIES.names())
def test_a_loaded_specialist_answers_like_the_saved_one(name, tmp_path):
    made, tables = stage_of("family", name)
    made.save(tmp_path / "one", name)
    again = Specialist.load(tmp_path / "one")
    assert again.fitted_until == made.fitted_until
    assert same_answers(made, again, tables)
    again.save(tmp_path / "two", name)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    # Negative control: another genome gives other answers.
    assert not same_answers(made, specialist(name, seed=4), tables)


# Detectors


@pytest.mark.parametrize("name", DETECTORS.names())
def test_probabilities_sum_to_one_and_an_unfitted_detector_refuses(name):
    detector, tables = stage_of("detector", name)
    values = transform(detector, *tables).values
    known = np.isfinite(values).all(axis=1)
    assert known[TRAIN.start + detector.warmup :].all()
    assert np.abs(values[known].sum(axis=1) - 1.0).max() < 1e-9
    unfitted = DETECTORS.create(name)
    assert unfitted.fitted_until is None
    with pytest.raises(ValueError, match="not fitted"):
        unfitted.update(features()[:10])


# Families


def unknown_rows(table: Table, rows: slice) -> Table:
    values = table.values.copy()
    values[rows] = np.nan
    return Table(table.time, values, table.names)


@pytest.mark.parametrize("name", FAMILIES.names())
def test_a_specialist_stays_in_bounds_and_is_flat_on_unknown_rows(name):
    made, (some_bars, some_features, some_labels) = stage_of("family", name)
    gap = slice(100, 400)
    targets = transform(made, some_bars, unknown_rows(some_features, gap), some_labels)
    exposure = targets.column("exposure")
    assert np.isfinite(exposure).all()
    assert np.abs(exposure).max() <= made.limits.max_exposure
    assert np.count_nonzero(exposure[gap]) == 0
    assert np.count_nonzero(exposure[gap.stop :]) > 0


@pytest.mark.parametrize("name", FAMILIES.names())
def test_the_population_kernel_trades_like_the_stream(name):
    family = FAMILIES.create(name)
    rows = slice(TRAIN.stop, N)
    part, known = bars()[rows], decision_rows(family, scaler(family.signals), features()[rows])
    awake = awake_rows(None, labels().column("label")[rows], known)
    limits = RiskLimits()
    settings = FitnessConfig(folds=2, min_trades=1)
    fitness = Fitness(family, part, known, awake, Costs(), limits, Venue(), settings)
    genes = np.vstack([specialist(name, seed).genome.genes for seed in (3, 4, 5)])
    statistics = fitness.statistics(genes)
    for i, seed in enumerate((3, 4, 5)):
        targets = transform(specialist(name, seed), part, features()[rows], labels()[rows])
        result = simulate(targets, part, Costs(), limits)
        returns = result.curve.column("net_return")
        assert statistics[i, :, 0].sum() == pytest.approx(returns.sum(), rel=1e-9, abs=1e-12)
        assert statistics[i, :, 1].sum() == pytest.approx((returns**2).sum(), rel=1e-9)
        assert statistics[i, :, 3].sum() == len(result.trades) > 0
    # Negative control: the statistics of genomes differ, so a mix-up of lanes would show.
    assert len({row.tobytes() for row in statistics}) > 1
    assert (fitness.statistics(genes[::-1].copy()) == statistics[::-1]).all()


# Policies


def check_policy(policy) -> None:
    """Check that controls are in bounds, and the same for the same progress, over a search on a sphere."""
    space = GenomeSpace(("a", "b"), np.zeros(2), np.ones(2), ("real", "real"))
    run = Hyperparameters(population_size=16, n_generations=12, patience=4)
    evolution = Evolution(space, run, stream(1, "ga"))
    while not evolution.finished:
        progress = evolution.progress
        before = progress.statistics.tobytes(), progress.history.tobytes()
        controls = policy.controls(progress)
        if controls != policy.controls(progress):
            raise AssertionError(f"generation {progress.generation}: other controls for the same progress")
        if before != (progress.statistics.tobytes(), progress.history.tobytes()):
            raise AssertionError(f"generation {progress.generation}: the policy changed the progress")
        for name, limits in CONTROL_RANGES.items():
            if not limits.low <= getattr(controls, name) <= limits.high:
                raise AssertionError(f"generation {progress.generation}: {name} is out of bounds")
        genes = evolution.ask(controls)
        evolution.tell(-((genes - 0.3) ** 2).sum(axis=1))


@pytest.mark.parametrize("name", POLICIES.names())
def test_a_policy_stays_in_bounds_and_repeats_itself(name):
    check_policy(POLICIES.create(name))


def check_variant(network):
    """A new network is silent, and what it says to a run depends on that run alone."""
    from conductor.network import flat, put, tensors
    from conductor.sight import Inputs
    from conductor.state import HISTORY_NAMES, STATE_NAMES

    rng, n = np.random.default_rng(1), max(network.n_history, 1)
    inputs = Inputs(
        rng.normal(size=(6, len(STATE_NAMES))).astype(np.float32),
        rng.normal(size=(6, n, len(HISTORY_NAMES))).astype(np.float32),
        rng.random((6, n)) < 0.8,
        np.array([-1, 0, 1, 2, 0, -1]),
    )
    if not network.n_history:
        inputs = inputs._replace(history=inputs.history[:, :0], known=inputs.known[:, :0])
    assert not network(tensors(inputs)).detach().numpy().any(), "it is not silent when new"
    put(network, flat(network) + rng.normal(0.0, 0.3, flat(network).size))
    said = network(tensors(inputs)).detach().numpy()
    assert said.shape == (6, 12)
    assert np.isfinite(said).all()
    assert said.any(), "no searched weight moves it"
    turned = [3, 0, 5, 1, 2, 4]
    moved = network(tensors(Inputs(*(part[turned] for part in inputs)))).detach().numpy()
    np.testing.assert_allclose(moved, said[turned], atol=1e-5, err_msg="runs beside it change an answer")


@pytest.mark.parametrize("name", registries()["variant"].names())
def test_a_variant_begins_silent_and_answers_each_run_alone(name):
    network = registries()["variant"].create(name)
    network.eval()
    check_variant(network)


def test_a_faulty_variant_is_seen():
    from conductor.network import VARIANTS

    class Loud(VARIANTS.get("es")):
        def forward(self, inputs):
            return super().forward(inputs) + 1.0

    class Gossip(VARIANTS.get("es")):
        def forward(self, inputs):
            said = super().forward(inputs)
            return said - said[:1]

    for kind, word in ((Loud, "silent"), (Gossip, "beside")):
        with pytest.raises(AssertionError, match=word):
            check_variant(kind(kind.Config()))


class MoodyPolicy:
    calls = 0

    def controls(self, progress):
        self.calls += 1
        return GAControls(mutation_rate=0.1 + 0.001 * (self.calls % 100))


class WildPolicy:
    def controls(self, progress):
        controls = GAControls()
        object.__setattr__(controls, "mutation_rate", 1.5)
        return controls


@pytest.mark.parametrize(("policy", "word"), [(MoodyPolicy(), "other controls"), (WildPolicy(), "bounds")])
def test_a_faulty_policy_is_seen(policy, word):
    with pytest.raises(AssertionError, match=word):
        check_policy(policy)


# Documents and settings


def test_every_registry_is_under_the_law():
    assert set(registries()) <= set(FLOWING) | OTHERS
    assert set(FLOWING) | {"policy"} <= set(registries())
    for kind, registry in registries().items():
        assert registry.names(), f"no {kind} is registered"


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_plugin_is_documented(kind, name):
    plugin = registries()[kind].get(name)
    assert len((plugin.__doc__ or "").strip()) > 10
    assert vars(plugin).get("__doc__") is plugin.__doc__  # its own, not that of a parent


def faults(model: type[Config]) -> list[str]:
    """Fields without a sentence, numbers without a bound, and bounds that are not enforced."""
    found = []
    for name, field in model.model_fields.items():
        kinds = {field.annotation, *typing.get_args(field.annotation)}
        section = any(isinstance(kind, type) and issubclass(kind, Config) for kind in kinds)
        if not field.description and not section:
            found.append(f"{name} has no sentence")
        limits = [one for one in field.metadata if isinstance(one, annotated_types.BaseMetadata)]
        if kinds & {int, float} and not limits and not section:
            found.append(f"{name} has no bound")
        for limit in limits:
            for key, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                if hasattr(limit, key) and accepts(model, name, getattr(limit, key) + step):
                    found.append(f"{name} may be beyond {key}={getattr(limit, key)}")
    return found


def complaints(model: type[Config], document: dict) -> set[tuple[str, str]]:
    """Setting and kind of everything that is wrong with a document."""
    try:
        model.model_validate(document)
    except pydantic.ValidationError as error:
        return {(str(one["loc"][0]), one["type"]) for one in error.errors() if one["loc"]}
    return set()


def accepts(model: type[Config], name: str, value: object) -> bool:
    return name not in {setting for setting, _ in complaints(model, {name: value})}


CONFIGURED = [(kind, name) for kind, name in PLUGINS if kind != "feature"]


@pytest.mark.parametrize(("kind", "name"), CONFIGURED)
def test_every_setting_has_a_sentence_and_bounds_that_hold(kind, name):
    model = registries()[kind].get(name).Config
    assert issubclass(model, Config)
    assert faults(model) == []


@pytest.mark.parametrize(("kind", "name"), CONFIGURED)
def test_an_unknown_setting_is_refused(kind, name):
    model = registries()[kind].get(name).Config
    assert ("no_such_setting", "extra_forbidden") in complaints(model, {"no_such_setting": 1})
    with pytest.raises(ConfigError, match=f"^{kind} {name}: "):
        registries()[kind].create(name, {"no_such_setting": 1})


class GoodConfig(Config):
    width: int = pydantic.Field(3, ge=1, lt=10, description="Bars.")
    part: PluginConfig = PluginConfig(name="hmm")


class MuteConfig(Config):
    width: int = pydantic.Field(3, ge=1)


class OpenConfig(Config):
    width: float = pydantic.Field(3.0, description="Bars.")


class LaxConfig(Config):
    width: int = pydantic.Field(3, ge=1, description="Bars.")

    @pydantic.field_validator("width", mode="wrap")
    @classmethod
    def _anything(cls, value, inner):
        return value


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (GoodConfig, []),
        (MuteConfig, ["width has no sentence"]),
        (OpenConfig, ["width has no bound"]),
        (LaxConfig, ["width may be beyond ge=1"]),
    ],
)
def test_a_faulty_config_is_seen(model, found):
    assert faults(model) == found
