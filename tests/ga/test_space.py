import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import InputError
from ga.space import Genome, GenomeSpace
from tests.reference import ga_operators as reference
from tests.reference.murmur import murmur3

OPTIONS = {"horizon": (4.0, 8.0, 24.0, 72.0), "side": ("long", "short", "both")}


def mixed_space(name="mixed"):
    return GenomeSpace(
        names=("weight", "period", "scale", "horizon", "side"),
        low=[-1.0, 5.0, 1e-3, 0.0, 0.0],
        high=[1.0, 9.0, 10.0, 0.0, 0.0],
        kind=("real", "integer", "log", "choice", "choice"),
        choices=OPTIONS,
        name=name,
    )


unit_rows = st.lists(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5), min_size=1, max_size=7)


@given(unit_rows)
@settings(max_examples=60, deadline=None)
def test_decoding_equals_the_naive_twin(rows):
    space = mixed_space()
    decoded = space.decode(np.array(rows))
    for row, values in zip(rows, decoded, strict=True):
        expected = [
            reference.decode(row[0], "real", -1.0, 1.0),
            reference.decode(row[1], "integer", 5.0, 9.0),
            reference.decode(row[2], "log", 1e-3, 10.0),
            reference.decode(row[3], "choice", 0, 3, OPTIONS["horizon"]),
            reference.decode(row[4], "choice", 0, 2, (0.0, 1.0, 2.0)),
        ]
        np.testing.assert_allclose(values, expected, rtol=1e-14, atol=1e-16)
        assert -1.0 <= values[0] <= 1.0
        assert 1e-3 <= values[2] <= 10.0


@given(unit_rows)
@settings(max_examples=60, deadline=None)
def test_a_genome_decodes_to_the_same_bytes_alone_and_in_a_batch(rows):
    space = mixed_space()
    batch = space.decode(np.array(rows))
    alone = np.vstack([space.decode(np.array([row])) for row in rows])
    assert batch.tobytes() == alone.tobytes()


@given(unit_rows)
@settings(max_examples=60, deadline=None)
def test_encoding_is_the_inverse_of_decoding(rows):
    space = mixed_space()
    values = space.decode(np.array(rows))
    genes = space.encode(values)
    assert ((genes >= 0.0) & (genes <= 1.0)).all()
    again = space.decode(genes)
    np.testing.assert_allclose(again, values, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(again[:, [1, 3, 4]], values[:, [1, 3, 4]])  # whole things exactly


def test_integers_and_choices_are_equally_likely():
    space = mixed_space()
    values = space.decode(space.sample(np.random.default_rng(5), 60_000))
    for column, levels in ((1, 5), (3, 4), (4, 3)):
        _, counts = np.unique(values[:, column], return_counts=True)
        assert len(counts) == levels
        # a Latin hypercube: each level gets its share almost exactly
        np.testing.assert_allclose(counts, 60_000 / levels, atol=2)


def test_the_reference_digest_gives_the_published_values():
    # the verification values of the MurmurHash3 test suites
    assert murmur3(b"") == (0, 0)
    assert murmur3(b"hello") == (0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19)
    assert murmur3(b"hello, world") == (0x342FAC623A5EBC8E, 0x4CDCBC079642414D)
    fox = b"The quick brown fox jumps over the lazy dog."
    assert murmur3(fox) == (0xCD99481F9EE902C9, 0x695DA1A38987B6E7)


@given(st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_keys_are_the_digest_of_the_decoded_bytes(d, seed):
    names = tuple(f"x{j}" for j in range(d))
    space = GenomeSpace(names, np.full(d, -1.0), np.full(d, 2.0), ("real",) * d)
    genes = np.random.default_rng(seed).random((5, d))
    expected = [murmur3(row.tobytes()) for row in space.decode(genes)]
    assert [tuple(row) for row in space.digests(genes).tolist()] == expected
    assert space.keys(genes) == [b"".join(word.to_bytes(8, "little") for word in pair) for pair in expected]


def test_keys_tell_genomes_apart_by_what_they_decode_to():
    space = mixed_space()
    genes = np.array([[0.5, 0.01, 0.5, 0.1, 0.1], [0.5, 0.02, 0.5, 0.2, 0.2], [0.5, 0.99, 0.5, 0.1, 0.1]])
    one, same, other = space.keys(genes)
    assert one == same != other
    neighbors = np.tile(genes[0], (2, 1))
    neighbors[1, 0] = np.nextafter(0.5, 1.0)
    assert len(set(space.keys(neighbors))) == 2  # one bit is enough
    many = np.random.default_rng(0).random((50_000, 5))
    assert len(set(space.keys(many))) == len(np.unique(space.decode(many), axis=0))


class Named(GenomeSpace):
    def keys(self, genes):
        return [b"%-16d" % round(row[0] * 10) for row in genes]


def test_a_space_with_keys_of_its_own_has_the_same_digests():
    space = Named(("a",), [0], [1], ("real",))
    digests = space.digests(np.array([[0.5], [0.51], [0.9]]))
    assert [row.tobytes() for row in digests] == [b"5".ljust(16), b"5".ljust(16), b"9".ljust(16)]
    space = type("Short", (Named,), {"keys": lambda self, genes: [b"5"] * len(genes)})(
        ("a",), [0], [1], ("real",)
    )
    with pytest.raises(ValueError, match="a key must have 16 bytes"):
        space.digests(np.array([[0.5]]))


def test_the_bounds_decode_to_the_bounds():
    space = mixed_space()
    np.testing.assert_array_equal(
        space.decode(np.array([[0.0] * 5, [1.0] * 5])), [[-1, 5, 1e-3, 4, 0], [1, 9, 10, 72, 2]]
    )


def test_equal_values_have_equal_bytes_even_for_negative_zero():
    space = GenomeSpace(("a",), [-1.0], [0.0], ("integer",))
    assert space.decode(np.array([[1.0]])).tobytes() == np.array([[0.0]]).tobytes()


def test_each_gene_visits_each_stratum_once():
    for p in (1, 2, 7, 64):
        genes = mixed_space().sample(np.random.default_rng(3), p)
        assert genes.shape == (p, 5)
        strata = np.sort(np.floor(genes * p).clip(max=p - 1), axis=0)
        np.testing.assert_array_equal(strata, np.repeat(np.arange(p)[:, None], 5, axis=1))


def test_the_stratum_check_catches_plain_uniform_draws():
    genes = np.random.default_rng(3).random((64, 5))
    assert len(np.unique(np.floor(genes[:, 0] * 64))) < 64


def test_sampled_genes_are_uncorrelated():
    genes = mixed_space().sample(np.random.default_rng(8), 4000)
    correlation = np.corrcoef(genes.T) - np.eye(5)
    assert np.abs(correlation).max() < 0.06


def test_values_are_named_and_texts_are_texts():
    values = mixed_space().values(np.array([0.5, 0.99, 0.0, 0.6, 0.99]))
    assert values == {"weight": 0.0, "period": 9, "scale": 1e-3, "horizon": 24.0, "side": "both"}
    assert isinstance(values["period"], int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "a")}, "must be different"),
        ({"low": [0.0]}, "each needs 2"),
        ({"low": [0.0, 3.0]}, "gene b ranges from 3.0 to 2.0; bounds must be finite and increasing"),
        ({"high": [1.0, np.inf]}, "gene b ranges from 1.0 to inf"),
        ({"kind": ("real", "log"), "low": [0.0, 0.0]}, "gene b is logarithmic from 0.0"),
        ({"kind": ("real", "integer"), "high": [1.0, 2.5]}, "its bounds must be whole"),
        ({"kind": ("real", "reel")}, "gene b has kind 'reel'; known: real, integer, log, choice"),
        ({"kind": ("real", "choice")}, "gene b is a choice of 0 options; it needs at least two"),
        ({"kind": ("real", "choice"), "choices": {"b": (1.0, "x")}}, "all numbers or all texts"),
        ({"choices": {"a": (1, 2)}}, "choices are given for a, which are not choice genes"),
    ],
)
def test_a_wrong_space_is_refused_in_one_sentence(change, message):
    arguments = {"names": ("a", "b"), "low": [0.0, 1.0], "high": [1.0, 2.0], "kind": ("real", "real")}
    with pytest.raises(ValueError, match=message):
        GenomeSpace(**{**arguments, **change})


def test_values_outside_the_space_are_not_encoded():
    space = mixed_space()
    good = [0.0, 5.0, 1.0, 8.0, 1.0]
    for column, value, message in (
        (0, 1.5, "gene weight is 1.5 in row 0; it must be between -1 and 1"),
        (0, np.nan, "gene weight is nan"),
        (1, 5.5, "gene period is 5.5 in row 0; it must be a whole number"),
        (3, 9.0, "gene horizon is 9.0 in row 0; it must be one of"),
    ):
        wrong = list(good)
        wrong[column] = value
        with pytest.raises(ValueError, match=message):
            space.encode(np.array([wrong]))


def test_genes_of_the_wrong_width_are_refused():
    with pytest.raises(ValueError, match=r"genes have shape \(3, 4\); mixed needs \(p, 5\)"):
        mixed_space().decode(np.zeros((3, 4)))


def test_a_saved_genome_loads_bit_for_bit_with_its_values_beside(tmp_path):
    space = mixed_space()
    rng = np.random.default_rng(1)
    for fitness in (0.1 + 0.2, np.nan, -np.inf):
        genome = Genome(rng.random(5), "mixed", fitness, ("evolve-volatile", 17))
        genome.save(tmp_path / "genome.json", space)
        document = json.loads((tmp_path / "genome.json").read_text())
        assert document["values"] == space.values(genome.genes)
        loaded = Genome.load(tmp_path / "genome.json", space)
        assert loaded.genes.tobytes() == genome.genes.tobytes()
        assert loaded.origin == ("evolve-volatile", 17)
        assert loaded.fitness == fitness or not np.isfinite(fitness)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(genes=[0.5, 0.5, 1.2, 0.5, 0.5]), r"gene 2 is 1.2; genes lie between 0 and 1"),
        (lambda d: d.update(genes=[0.5, float("nan"), 0.5, 0.5, 0.5]), "gene 1 is nan"),
        (lambda d: d.update(genes=[0.5, 0.5]), "has 2 genes; mixed has 5"),
        (lambda d: d.update(genes="abc"), "this is not a saved genome"),
        (lambda d: d.update(space="other"), "belongs to the space 'other'"),
        (lambda d: d.update(names=["a", "b", "c", "d", "e"]), "its genes are a, b, c, d, e"),
        (lambda d: d.pop("origin"), "origin is missing"),
    ],
)
def test_a_wrong_genome_file_is_refused_in_one_sentence(tmp_path, edit, message):
    path = tmp_path / "genome.json"
    Genome(np.full(5, 0.5), "mixed").save(path, mixed_space())
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as caught:
        Genome.load(path, mixed_space())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_genome_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing.json: the genome cannot be read"):
        Genome.load(tmp_path / "nothing.json", mixed_space())
    for text in ("{", "[1, 2]", "3"):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(InputError, match=r"broken.json: this is not a saved genome"):
            Genome.load(tmp_path / "broken.json", mixed_space())


def test_spaces_and_genomes_cannot_be_changed():
    space, genome = mixed_space(), Genome([0.5], "s")
    for array in (space.low, space.high, genome.genes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0
