"""Evolve a specialist from Python, and keep the test rows closed until the end.

``python examples/evolve_a_specialist.py``
"""

from compute.workers import mapper
from ga.controls import Hyperparameters
from market.sources.synthetic import SyntheticConfig, synthetic_market
from specialists.training import SpecialistConfig, evolve_specialist, open_test, prepare

bars = synthetic_market(SyntheticConfig(n_bars=20_000, seed=4)).bars
config = SpecialistConfig(
    regime="trending",
    hyperparameters=Hyperparameters(population_size=64, n_generations=20, patience=0),
)
ground = prepare(bars, config)  # features, causal regimes, split; fitted on the training rows
with mapper("threads") as workers:
    evolved = evolve_specialist(ground, config, workers)
print(f"in sample      Sharpe {evolved.in_sample.metrics.sharpe:.2f} after {evolved.n_unique} genomes")

unseen = open_test(ground, evolved.specialist, config.costs)
print(f"out of sample  Sharpe {unseen.champion.metrics.sharpe:.2f}, held {unseen.held.metrics.sharpe:.2f}")
