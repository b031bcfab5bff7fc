"""Bugs in what a search survives and shares: checkpoints, resume, islands, fronts, windows."""

from tests.mutants.mutant import Mutant

CHECKPOINT = "tests/ga/test_checkpoint.py"
SNAPSHOT = "tests/ga/test_snapshot.py"
SEARCHING = "tests/ga/test_searching.py"
EVALUATION = "tests/ga/test_evaluation.py"
PARETO = "tests/ga/test_pareto.py"
FAN = "tests/jobs/test_fan.py"
RESTORED = f"{SEARCHING}::test_a_search_that_is_restored_ends_as_if_it_had_never_stopped[5-single]"

SEARCHES = (
    Mutant(
        "generator-not-restored",
        "RNG not saved",
        "ga/evolution.py",
        '        self._rng.bit_generator.state = copy.deepcopy(state["rng"])\n',
        "",
        (RESTORED,),
    ),
    Mutant(
        "evaluations-forgotten-by-a-resume",
        "F1",
        "ga/searching.py",
        '        self.evaluator.restore(state["evaluator"])\n',
        "",
        (RESTORED,),
    ),
    Mutant(
        "digest-of-a-checkpoint-not-compared",
        "F3",
        "ga/snapshot.py",
        "    return hashlib.sha256(view[:-_DIGEST]).digest() == view[-_DIGEST:]",
        "    return len(view) > _DIGEST",
        (f"{SNAPSHOT}::test_every_single_bit_of_a_file_counts",),
    ),
    Mutant(
        "islands-that-never-exchange",
        "B11",
        "ga/islands.py",
        "        if len(self.islands) > 1 and generation and generation % self._config.interval == 0:\n",
        "        if len(self.islands) < 1 and generation and generation % self._config.interval == 0:\n",
        (f"{SEARCHING}::test_the_best_of_an_island_arrive_on_the_next_one",),
    ),
    Mutant(
        "the-living-judged-on-the-last-window",
        "S3",
        "ga/searching.py",
        "                evolution.reassess(evaluator.fitness_of(evolution.population.genes, generation))\n",
        "                evaluator.fitness_of(evolution.population.genes, generation)\n",
        (
            f"{SEARCHING}::"
            "test_where_fitness_rotates_everybody_alive_is_judged_on_the_window_of_the_generation",
        ),
    ),
    Mutant(
        "champion-of-the-last-window",
        "S3",
        "ga/searching.py",
        "self.evaluator.fitness_of(self.evolution.population.genes, None)",
        "self.evolution.population.fitness",
        (f"{SEARCHING}::test_the_champion_of_a_rotating_fitness_is_the_best_on_all_windows_together",),
    ),
    Mutant(
        "checkpoint-named-before-it-is-on-the-disk",
        "F1",
        "ga/checkpoint.py",
        "            os.fsync(descriptor)\n",
        "",
        (f"{CHECKPOINT}::test_content_reaches_the_disk_before_the_name_does",),
    ),
    Mutant(
        "checkpoints-of-a-lost-future-kept",
        "F3",
        "ga/checkpoint.py",
        "[one for one in saved if one <= generation]",
        "saved",
        (f"{CHECKPOINT}::test_what_is_damaged_goes_when_the_run_has_passed_it",),
    ),
    Mutant(
        "equals-that-dominate-each-other",
        "B2",
        "ga/pareto_kernels.py",
        "        better = better | (a[j] > b[j])\n",
        "        better = better | (a[j] >= b[j])\n",
        (f"{PARETO}::test_ranks_are_those_of_deap_with_ties_and_duplicates",),
    ),
    Mutant(
        "survivors-counted-as-cache-hits",
        "S5",
        "ga/evaluation.py",
        "        later = self.calls[self.calls[:, 0] != 0]\n",
        "        later = self.calls\n",
        (f"{EVALUATION}::test_the_hit_rate_is_the_share_of_offspring_that_cost_nothing",),
    ),
    Mutant(
        "settings-changed-behind-a-resumed-run",
        "F1",
        "specialists/evolving.py",
        '            "settings": self.config.digest(),\n',
        "",
        (f"{FAN}::test_a_run_whose_settings_were_edited_is_not_resumed",),
    ),
)
