"""The benchmarks of the population kernel run, print their tables, and measure what they say they measure."""

import math
import re

import numba
import numpy as np
import pandas as pd
import pytest

from benchmarks import kernel_floor, kernel_options, kernel_scaling, population_kernel, reference_family
from benchmarks.measuring import Case, random_walk, unlike_the_stream

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="a benchmark of compiled code")
pytestmark = compiled

NUMBER = r"\s+\d+\.\d\d"


@pytest.fixture(scope="module")
def market():
    rng = np.random.default_rng(3)
    prices = random_walk(3000, rng)
    return Case(prices, reference_family.rows_of(prices)), reference_family.draw(12, rng)


def unlike(case, genes, evaluate=reference_family.evaluate):
    read = reference_family.express(genes)
    return unlike_the_stream(case, evaluate, reference_family.follow, reference_family.FRESH, read)


# What is measured


def test_the_kernel_decides_what_the_stream_decides(market):
    assert unlike(*market) == 0


def test_one_decision_that_the_stream_does_not_make_is_seen(market):
    case, genes = market

    def crossed(population, *arguments):
        population = population.copy()
        population[4, 5] *= 0.5  # the target of one genome
        reference_family.evaluate(population, *arguments)

    assert unlike(case, genes, crossed) == 1


def test_the_plain_loop_is_the_same_rule(market):
    case, genes = market
    whole = Case(case.prices, case.rows, folds=1)
    read = reference_family.express(genes)
    statistics = whole.run(reference_family.evaluate, read)
    for one, kernel in zip(read.tolist(), statistics, strict=True):
        plain = list(reference_family.plain_loop(one, case.rows.tolist(), case.prices.tolist()).values())
        assert plain == pytest.approx(kernel, rel=1e-9)
        assert plain[3] == kernel[3] > 0
    # Negative control: another genome is not the same.
    assert plain != pytest.approx(statistics[0], rel=1e-3)


def test_the_averages_and_the_rsi_inside_the_kernel_are_those_of_the_books(market):
    case, genes = market
    close = pd.Series(case.prices[:, 3])
    change = close.diff().fillna(0.0)
    for one in genes:
        fast, slow, period, cap = one[:4]
        patient = np.array([*one[:4], 0.9, 9.0, 1e6, 0.5])  # neither stop nor target nor hold
        got = case.decisions(
            reference_family.follow, reference_family.FRESH, reference_family.express(patient[None])[0]
        )[:, 0]
        above = close.ewm(span=fast, adjust=False).mean() > close.ewm(span=slow, adjust=False).mean()
        gain, loss = (
            part.ewm(alpha=1 / period, adjust=False).mean()
            for part in (change.clip(lower=0), -change.clip(upper=0))
        )
        opens = above & ~above.shift(1, fill_value=False) & (100 * gain / (gain + loss) < cap)
        held, expected = False, []
        for up, opening in zip(above, opens, strict=True):
            held = up and (held or opening)
            expected.append(0.5 * held)
        assert (got == expected).all()
        assert 0 < np.count_nonzero(got) < len(got)


# The tables


def test_the_reference_family_prints_its_time_and_agrees_with_the_stream(capsys):
    reference_family.main(["--bars", "1500", "--genomes", "5", "--runs", "1"])
    printed = capsys.readouterr().out
    assert re.search(rf"1 core {NUMBER} best{NUMBER} median", printed)
    assert re.search(rf"plain Python loop{NUMBER} for one genome", printed)
    assert "streaming decide: 0 of 5" in printed


def test_the_population_kernel_prints_a_line_per_mask_and_threads_and_the_peers(capsys):
    population_kernel.main(
        ["--bars", "1500", "--genomes", "5", "--runs", "1", "--families", "reference", "--peers"]
    )
    printed = capsys.readouterr().out
    assert (
        len(re.findall(rf"^reference, 8 genes +(always|25%) +[12]{NUMBER}{NUMBER}{NUMBER}", printed, re.M))
        == 4
    )
    assert "reference, 8 genes: 0 of 5 genomes decide otherwise" in printed
    assert re.search(r"^population kernel +[\d.]+ ns", printed, re.M)
    for peer in ("vectorbt", "backtesting"):  # an extra: without it the line says so
        assert re.search(rf"^{peer}(: skipped|\S* \S+ +[\d,.]+ ns)", printed, re.M)


def test_the_scaling_prints_bars_genomes_threads_and_memory(capsys):
    tables = ["--genomes", "3", "--runs", "1", "--most-bars", "2000", "--most-genomes", "5", "--bars", "500"]
    kernel_scaling.main([*tables, "--memory", "2000", "4"])
    printed = capsys.readouterr().out
    for first in ("1,000", "2,000", "1", "4", "5"):
        assert re.search(rf"^ +{first}{NUMBER}", printed, re.M), first
    memory = [float(mb) for mb in re.findall(r"^ +(\d+) (?:after|with)", printed, re.M)]
    assert len(memory) == 3
    assert memory == sorted(memory)
    assert memory[0] > 50


def test_the_floor_prints_what_the_loop_is_made_of(capsys):
    kernel_floor.main(["--bars", "1000", "--genomes", "64", "--runs", "1", "--families", "reference"])
    printed = capsys.readouterr().out
    if "no vector loop" in printed:
        pytest.skip("the assembly has no packed float64 of x86-64")
    assert re.search(r"reference, 8 genes: \d+ instructions for [248] genomes", printed)
    assert "1 divide" in printed  # the return of the bar; the RSI is compared without one
    for name in ("counted floor", "measured"):
        assert re.search(rf"{name}{NUMBER} ns", printed), name


# The counting

LOOP = """
	vbroadcastsd	(%rdi), %zmm9
.LBB0_1:
	incq	%rdx
.LBB0_2:
	vmovupd	512(%rbx,%rcx), %zmm5
	vcmpltpd	1536(%rbx,%rcx), %zmm5, %k1
	vmulpd	%zmm5, %zmm6, %zmm7
	vdivpd	%zmm5, %zmm7, %zmm8
	vaddpd	%zmm8, %zmm7, %zmm7 {%k1}
	vmovapd	%zmm7, %zmm8 {%k1} {z}
	vmovapd	%zmm7, %zmm9
	vmovupd	%zmm7, 512(%rbx,%rcx) {%k1}
	addq	$64, %rcx
	jne	.LBB0_2
	cmpq	%rdx, %rsi
	jne	.LBB0_1
"""


def test_the_inner_loop_is_found_and_counted():
    loop = kernel_floor.inner_loop(LOOP)
    assert len(loop) == 10
    assert loop[0].startswith("vmovupd")
    assert loop[-1] == "jne\t.LBB0_2"
    assert kernel_floor.lanes_of(loop) == 8
    assert kernel_floor.counts(loop) == {
        "load": 2, "compare": 1, "multiply": 1, "divide": 1, "add": 1, "blend": 1, "move": 1, "store": 1,
        "scalar": 2,
    }  # fmt: skip
    bound = kernel_floor.counted(loop)
    assert bound["issue"] == 10 / 8
    assert bound["multiply, divide"] == (1 + 4) / 2
    assert bound["stores"] == 1


def test_without_a_vector_loop_there_is_no_floor():
    assert kernel_floor.lanes_of(kernel_floor.inner_loop("ret\n")) == 1
    assert kernel_floor.lanes_of(kernel_floor.inner_loop(LOOP.replace("zmm", "rax").replace("pd", "sd"))) == 1


def test_the_independent_loop_runs_or_says_that_it_cannot():
    seconds = kernel_floor.timed(kernel_floor.inner_loop(LOOP), 1)
    assert math.isnan(seconds) or seconds > 0


def test_the_peak_of_a_process_grows_with_what_it_holds():
    before = kernel_scaling.peak_mb()
    held = np.ones(int(before * 1e6 / 8))  # as much again
    assert kernel_scaling.peak_mb() > before + held.nbytes * 0.5e-6


def test_every_option_of_an_account_is_measured_and_makes_a_difference(capsys):
    kernel_options.main(["--bars", "2000", "--genomes", "64", "--runs", "1"])
    lines = capsys.readouterr().out.splitlines()
    names = [name for name, *_ in kernel_options.SETTINGS]
    growth = {
        name: next(float(line.split()[-1]) for line in lines if line.startswith(name)) for name in names
    }
    assert len(set(growth.values())) > 5
    assert growth["perpetual: funding, margin"] != growth["none"]
