"""The study of regimes finds what was planted in a race, and asks for the trainings that it needs."""

import re

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import conductor_regimes
from conductor.lineup import REFERENCE, SUBJECT
from conductor.race_comparison import Race
from regimes.regime import REGIME_NAMES

PLACES = {"es": SUBJECT} | {
    name: f"{SUBJECT} {name}"
    for name in ("es without ranging", "es without trending", "es without volatile", "dann", "hybrid")
}
NUMBER = re.compile(r"[+-]\d+\.\d\d")


def race_of(gains, noise=0.02):
    """A race of 12 stretches with a window per regime; ``gains`` maps (contestant, regime) to decades."""
    rng = np.random.default_rng(1)
    made = []
    for stretch in range(12):
        for regime in range(3):
            level = rng.normal()
            for name in (REFERENCE, *PLACES.values()):
                final = level + gains(name, regime) + noise * rng.normal()
                made.append(
                    {
                        "contestant": name,
                        "suite": "windows",
                        "problem": f"{stretch} {regime}",
                        "cluster": f"stretch {stretch}",
                        "instance": regime,
                        "regime": regime,
                        "seed": 0,
                        "anytime": final / 2.0,
                        "final": final,
                        "evaluations": 100,
                        "budget": 100,
                    }
                )
    return Race.of(pa.Table.from_pylist(made))


def kept(lines):
    """Share that is kept on the final error, by regime; None where there was nothing to keep."""
    found = {}
    for line in lines:
        if words := re.match(r"  (\w+) +final +(?:\S+ *)", line):
            number = NUMBER.search(line)
            if "against" not in line and "anytime" not in line:
                found[words[1]] = float(number[0]) if number else None
    return found


def test_the_share_of_a_gain_that_an_unseen_regime_keeps_is_found():
    def gains(name, regime):
        if name == REFERENCE:
            return 0.0
        lost = name.endswith(("ranging", "trending", "volatile")[regime])
        return -0.2 if lost else -0.4

    shares = kept(conductor_regimes.tables(race_of(gains), PLACES, "es"))
    assert shares == {name: pytest.approx(0.5, abs=0.06) for name in REGIME_NAMES}
    # Negative control: nothing is lost.
    whole = kept(conductor_regimes.tables(race_of(lambda name, _: -0.4 * (name != REFERENCE)), PLACES, "es"))
    assert whole == {name: pytest.approx(1.0, abs=0.06) for name in REGIME_NAMES}


def test_a_share_of_no_gain_is_not_told():
    lines = conductor_regimes.tables(race_of(lambda *_: 0.0, noise=0.0), PLACES, "es")
    assert sum("no gain to keep" in line for line in lines) == 6


def test_the_hybrid_stands_beside_its_parts_regime_by_regime():
    lines = conductor_regimes.tables(
        race_of(lambda name, regime: -0.3 * (name.endswith("hybrid") and regime == 2)), PLACES, "es"
    )
    begin = next(i for i, line in enumerate(lines) if line.startswith("hybrid against dann"))
    told = {line.split()[0]: float(NUMBER.search(line)[0]) for line in lines[begin + 1 : begin + 5]}
    assert told == {
        "all": pytest.approx(-0.1, abs=0.03),
        "ranging": pytest.approx(0.0, abs=0.03),
        "trending": pytest.approx(0.0, abs=0.03),
        "volatile": pytest.approx(-0.3, abs=0.03),
    }
    assert not any(line.startswith("hybrid against specific") for line in lines)  # it was not trained


def test_each_regime_is_left_out_once_and_the_parts_may_be_left_out():
    made = conductor_regimes.wanted("es", with_parts=False)
    assert [settings for _, settings in made.values()] == [
        (),
        *((f"trading.held_out_regimes=[{name}]",) for name in REGIME_NAMES),
    ]
    assert set(conductor_regimes.wanted("es", with_parts=True)) - set(made) == set(conductor_regimes.PARTS)
