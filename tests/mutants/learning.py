"""Bugs in what learns: features, scaling, regimes, the search, and the workers and seeds beneath them."""

from tests.mutants.mutant import Mutant

DETECTORS = "tests/regimes/test_detectors.py"
EVALUATION = "tests/ga/test_evaluation.py"
EVOLUTION = "tests/ga/test_evolution.py"
FEATURES = "tests/market/test_features_laws.py"
TRAINING = "tests/specialists/test_training.py"

LEARNING = (
    Mutant(
        "scaler-fitted-on-all-rows",
        "scaler fit on all",
        "specialists/training.py",
        "scaler = Scaler.fit(features.select(family.signals))",
        "scaler = Scaler.fit(ground.features.select(family.signals))",
        (f"{TRAINING}::test_everything_fitted_says_until_when_and_the_test_begins_after_an_embargo",),
    ),
    Mutant(
        "detector-fitted-on-all-rows",
        "L6",
        "specialists/training.py",
        "detector.fit(features[split.train])",
        "detector.fit(features[split.train.start :])",
        (f"{TRAINING}::test_everything_fitted_says_until_when_and_the_test_begins_after_an_embargo",),
    ),
    Mutant(
        "champion-that-has-seen-the-test-rows",
        "L6",
        "specialists/training.py",
        "if specialist.fitted_until > opened:",
        "if specialist.fitted_until > bars.time[-1]:",
        (f"{TRAINING}::test_a_champion_that_has_seen_the_test_rows_is_refused",),
    ),
    Mutant(
        "hmm-smoothed",
        "HMM smoothed",
        "regimes/hmm.py",
        "        forward_filter(log_likelihood[first:], self.transition, self._belief, hidden[first:])\n",
        "        forward_filter(log_likelihood[first:], self.transition, self._belief, hidden[first:])\n"
        "        from regimes.hindsight import backward_smoother\n"
        "        backward_smoother(hidden[first:].copy(), self.transition, hidden[first:])\n",
        (f"{DETECTORS}::test_altering_the_future_changes_nothing_before_it[reversed-hmm]",),
    ),
    Mutant(
        "hmm-forgets-its-belief-between-chunks",
        "L4",
        "regimes/hmm.py",
        "self.transition, self._belief, hidden[first:])",
        "self.transition, self.stationary.copy(), hidden[first:])",
        (f"{DETECTORS}::test_cutting_the_input_anywhere_changes_no_bit[hmm]",),
    ),
    Mutant(
        "refit-judged-a-bar-early",
        "refit one bar early",
        "regimes/detector.py",
        "if detector.fitted_until >= time:",
        "if detector.fitted_until > time:",
        (f"{DETECTORS}::test_rows_up_to_the_last_fitted_one_are_not_out_of_sample[hmm]",),
    ),
    Mutant(
        "refitted-member-answers-its-own-last-row",
        "refit one bar early",
        "regimes/refits.py",
        "pause = (self.embargo_bars + 1) * self.interval(time)",
        "pause = self.embargo_bars * self.interval(time)",
        ("tests/regimes/test_refits.py::test_a_schedule_is_resolved_to_times_by_hand",),
    ),
    Mutant(
        "member-that-did-not-listen-before-its-turn",
        "warm-up shorter than memory",
        "regimes/refits.py",
        "self._hears_from = self.used_from - heard",
        "self._hears_from = self.used_from - heard // 50",
        ("tests/regimes/test_refits.py::test_each_row_is_answered_by_the_latest_member_of_its_past",),
    ),
    Mutant(
        "yardstick-that-sees-the-bar-it-foretells",
        "L1",
        "regimes/foretelling.py",
        "ahead[1:] = probabilities.values[:-1] @ chain",
        "ahead[1:] = probabilities.values[1:] @ chain",
        ("tests/regimes/test_foretelling.py::test_only_the_probabilities_of_the_row_before_are_used",),
    ),
    Mutant(
        "outlook-that-carries-the-chain-backwards",
        "L7",
        "regimes/outlook.py",
        "np.linalg.matrix_power(chain, h) for h",
        "np.linalg.matrix_power(chain.T, h) for h",
        ("tests/regimes/test_outlook.py::test_the_outlook_is_the_sum_over_every_future",),
    ),
    Mutant(
        "filter-with-the-transition-transposed",
        "L7",
        "regimes/kernels.py",
        "predicted += belief[i] * transition[i, j]",
        "predicted += belief[i] * transition[j, i]",
        (
            "tests/regimes/test_hamilton.py::test_filtered_and_predicted_probabilities_are_those_of_statsmodels",
        ),
    ),
    Mutant(
        "jump-that-costs-nothing",
        "L7",
        "regimes/jump_kernels.py",
        "value = min(memory[k], penalty) if started else 0.0",
        "value = 0.0",
        ("tests/regimes/test_jump.py::test_labels_equal_those_of_jumpmodels_online",),
    ),
    Mutant(
        "change-points-without-hazard",
        "L7",
        "regimes/run_length_kernels.py",
        "carried[r] = (1.0 - hazard) * memory[j, r]",
        "carried[r] = memory[j, r]",
        ("tests/regimes/test_bocpd.py::test_the_posterior_equals_that_of_a_list_of_all_runs",),
    ),
    Mutant(
        "committee-weighed-on-rows-its-members-were-fitted-on",
        "L6",
        "regimes/committee.py",
        "member.fit(features[:first])",
        "member.fit(features)",
        (
            "tests/regimes/test_committee.py::test_the_weights_are_learned_on_rows_that_the_members_have_not_seen",
        ),
    ),
    Mutant(
        "path-decides-by-the-row-after",
        "L1",
        "regimes/path.py",
        "dwell(probabilities.values, config",
        "dwell(np.roll(probabilities.values, -1, axis=0), config",
        ("tests/regimes/test_path.py::test_a_path_by_hand",),
    ),
    Mutant(
        "warm-up-shorter-than-the-memory",
        "warm-up shorter than memory",
        "market/features/feature.py",
        "FORGOTTEN = 1e-8",
        "FORGOTTEN = 1e-3",
        (f"{FEATURES}::test_where_the_stream_begins_no_longer_matters_after_the_warmup",),
    ),
    Mutant(
        "feature-of-the-next-bar",
        "L1",
        "market/features/volatility.py",
        "out[t - first] = part[t] / whole[t]",
        "out[t - first] = part[min(t + 1, part.size - 1)] / whole[t]",
        (f"{FEATURES}::test_another_market_afterwards_changes_no_row_before_it",),
    ),
    Mutant(
        "awake-outside-the-regime",
        "L7",
        "specialists/specialist.py",
        "mine = labels >= 0 if regime is None else labels == int(regime)",
        "mine = labels >= 0",
        (
            "tests/specialists/test_specialist.py"
            "::test_a_specialist_wants_nothing_outside_its_regime_and_trades_inside_it",
        ),
    ),
    Mutant(
        "seed-that-knows-the-workers",
        "worker-dependent seed",
        "specialists/training.py",
        'stream(config.seed, "ga")',
        'stream(config.seed, "ga", workers.n_workers)',
        (f"{TRAINING}::test_the_same_seed_gives_the_same_bytes_with_one_thread_or_two",),
    ),
    Mutant(
        "chunks-that-know-the-workers",
        "worker-dependent seed",
        "ga/evaluation.py",
        "        new = genes[list(first.values())]\n",
        "        new = genes[list(first.values())]\n"
        "        self._chunk_size = max(1, len(new) // self._mapper.n_workers)\n",
        (f"{EVALUATION}::test_chunks_do_not_depend_on_the_number_of_workers",),
    ),
    Mutant(
        "streams-that-share-their-numbers",
        "B11",
        "compute/seeds.py",
        "np.random.SeedSequence(seed, spawn_key=key.tolist())",
        "np.random.SeedSequence(seed)",
        (
            "tests/compute/test_seeds.py::test_neither_order_nor_use_of_other_streams_matters",
            "tests/compute/test_seeds.py::test_streams_are_independent",
        ),
    ),
    Mutant(
        "answers-as-they-complete",
        "B11",
        "compute/workers.py",
        "        return list(self._pool.map(function, items))\n",
        "        from concurrent.futures import as_completed\n"
        "        waiting = [self._pool.submit(function, item) for item in items]\n"
        "        return [one.result() for one in as_completed(waiting)]\n",
        ("tests/compute/test_workers.py::test_results_keep_the_order_of_the_items",),
    ),
    Mutant(
        "sums-in-any-order",
        "B11",
        "compute/kernels.py",
        '"fastmath": False',
        '"fastmath": True',
        ("tests/compute/test_kernels.py::test_sums_are_not_reordered",),
    ),
    Mutant(
        "kernels-of-yesterday",
        "B11",
        "compute/kernels.py",
        'digest.update(path.read_bytes() if path.exists() else b"")',
        'digest.update(b"")',
        ("tests/compute/test_kernels.py::test_the_folder_is_named_by_the_sources",),
    ),
    Mutant(
        "evaluated-genomes-asked-for-again",
        "generation repeated",
        "ga/evolution.py",
        "        return np.flatnonzero(~new) if not new.all() else _NO_ROWS\n",
        "        return _NO_ROWS\n",
        (f"{EVOLUTION}::test_evaluated_genomes_are_not_asked_for_again",),
    ),
)
