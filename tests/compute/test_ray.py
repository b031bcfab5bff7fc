"""The mapper that runs on Ray: same answers, whatever dies; loopback only; gauges that can be read."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.venue import Venue
from compute.kernels import cache_folder
from compute.workers import ClusterError, SerialMapper, ThreadMapper, WorkersError, mapper
from configs.load import ConfigError
from ga.evaluation import Evaluator
from specialists.family import FAMILIES
from specialists.fitness import Fitness, FitnessConfig

# All tests of Ray are in this file: two Rays that start side by side on two cores starve each other.
pytestmark = pytest.mark.ray

PATIENCE = 60.0  # seconds; two cores may be shared with many other tests


@pytest.fixture(scope="module")
def two():
    """Two workers of a Ray on this machine, with its dashboard."""
    with mapper("ray", 2, dashboard=True) as workers:
        yield workers


@pytest.fixture(scope="module")
def fitness():
    """The real fitness of the default family on a random walk of 2,000 bars."""
    from market.bars import OHLCV, Bars, timeframe_ns

    n, random = 2_000, np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, n)))
    before = np.concatenate([[100.0], close[:-1]])
    reach = np.abs(random.normal(0.0, 0.005, (2, n)))
    high, low = np.maximum(before, close) * (1.0 + reach[0]), np.minimum(before, close) * (1.0 - reach[1])
    values = np.column_stack([before, high, low, close, random.lognormal(3.0, 1.0, n)])
    hour = timeframe_ns("1h")
    bars = Bars((1 + np.arange(n)) * hour, values, OHLCV, symbol="BTC/USDT", interval_ns=hour)
    family = FAMILIES.create("blend", {})
    signals = random.normal(0.0, 1.0, (n, len(family.signals)))
    rows = np.column_stack([signals, np.full((n, len(family.levels)), 0.01)])
    config = FitnessConfig(folds=5, min_trades=1)
    return Fitness(family, bars, rows, np.ones(n, np.int8), Costs(), RiskLimits(), Venue(), config)


def generations(fitness):
    """Genes of three small generations, in which a fifth of the genomes come again."""
    random = np.random.default_rng(1)
    genes = random.random((150, fitness.family.space.n_genes))
    return [genes[:100], np.concatenate([genes[100:], genes[:20]]), random.random((37, genes.shape[1]))]


def evaluated(fitness, workers, chunk_size=32):
    """Return a hash of the fitness of the generations, and how many evaluations were counted."""
    evaluator, digest = Evaluator(fitness, fitness.family.space, workers, chunk_size), hashlib.sha256()
    for genes in generations(fitness):
        digest.update(evaluator(genes).tobytes())
    return digest.hexdigest(), evaluator.evaluations


def test_ray_gives_the_same_bits_and_counts_as_threads_and_one_process(two, fitness):
    alone = evaluated(fitness, SerialMapper())
    assert alone[1] == 187  # the twenty that come again cost nothing
    kernels = sorted(path.name for path in cache_folder().iterdir())
    with ThreadMapper(3) as threads:
        assert evaluated(fitness, threads) == alone
    assert evaluated(fitness, two) == alone
    assert evaluated(fitness, two, chunk_size=1) == alone
    assert sorted(path.name for path in cache_folder().iterdir()) == kernels  # workers load, none compiles


def test_the_comparison_of_bits_catches_lost_order_and_work_done_twice(fitness):
    class Disordered(SerialMapper):
        def map(self, function, items):
            return super().map(function, items)[::-1]

    class Twice(SerialMapper):
        def map(self, function, items):
            items = list(items)
            return super().map(function, items + items[-1:])

    alone = evaluated(fitness, SerialMapper(), chunk_size=1)
    assert evaluated(fitness, Disordered(), chunk_size=1) != alone
    with pytest.raises(ValueError, match=r"zip|shape|length|broadcast|argument"):
        evaluated(fitness, Twice(), chunk_size=1)


def test_results_keep_the_order_of_the_items_whoever_is_quicker(two):
    def slow_first(i):
        import time

        time.sleep(0.2 if i == 0 else 0.0)
        return i * i

    assert two.map(slow_first, (i for i in range(20))) == [i * i for i in range(20)]
    assert two.map(slow_first, []) == []


def test_the_first_error_arrives_as_itself_and_the_workers_stay_good(two):
    def fail(i):
        import time

        time.sleep(0.2 if i == 2 else 0.0)
        if i in (2, 5):
            raise ConfigError(f"genome {i} is odd")
        return i

    with pytest.raises(ConfigError) as caught:
        two.map(fail, range(8))
    assert caught.type is ConfigError
    assert caught.value.args == ("genome 2 is odd",)
    assert "In a worker process" in caught.value.__notes__[0]
    assert two.map(lambda i: -i, range(4)) == [0, -1, -2, -3]


def test_arrays_travel_in_messages_of_enough_genomes_and_arrive_writable(two):
    def double(genes):
        genes *= 2.0
        return genes

    chunks = [np.full((1, 6), float(i)) for i in range(100)]
    before = two.messages, two.sent_bytes
    doubled = two.map(double, chunks)
    assert [one[0, 0] for one in doubled] == [2.0 * i for i in range(100)]
    assert doubled[0].flags.writeable
    assert chunks[3][0, 0] == 3.0
    assert two.messages - before[0] == 4  # of 25
    assert two.sent_bytes - before[1] < 100 * (6 * 8 + 200)


def test_a_function_travels_once_with_its_data_and_lies_in_shared_memory(two):
    class Heavy:
        def __init__(self):
            self.data = np.arange(1_000_000.0)

        def __call__(self, i):
            return id(self), self.data.flags.owndata, float(self.data[i])

    heavy, before = Heavy(), two.sent_bytes
    answers = two.map(heavy, range(8)) + two.map(heavy, range(8)) + two.map(heavy.__call__, range(2))
    assert two.sent_bytes - before < 10_000  # and not 8 MB each time
    assert len({answer[0] for answer in answers[:16]}) <= 2  # one object per worker
    assert not any(answer[1] for answer in answers)
    assert [answer[2] for answer in answers[:8]] == list(range(8))


def test_more_functions_than_a_worker_holds_are_sent_again(two):
    functions = [lambda i, k=k: (i, k) for k in range(12)]
    for _ in range(2):
        assert [two.map(f, [1])[0] for f in functions] == [(1, k) for k in range(12)]


def test_a_worker_process_has_one_thread_and_reports_no_usage(two):
    def look(_):
        import os

        import numba

        return numba.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["RAY_USAGE_STATS_ENABLED"]

    assert set(two.map(look, range(4))) == {(1, "1", "0")}


def slowly(fitness):
    def slow(genes):
        import time

        time.sleep(0.15)
        return fitness(genes)

    return slow


@pytest.mark.parametrize("how", ["process", "actor"])
def test_a_worker_killed_at_its_work_changes_no_bit_and_no_count(two, fitness, how):
    alone = evaluated(fitness, SerialMapper(), chunk_size=25)
    replaced, slow = two.replaced, slowly(fitness)
    processes = set(two.map(lambda _: os.getpid(), range(8)))

    def kill():
        if how == "process":
            os.kill(min(processes), signal.SIGKILL)
        else:
            import ray

            ray.kill(two._actors[0].handle)

    class Killing:
        def __init__(self):
            self.maps = 0

        def map(self, function, items):
            self.maps += 1
            if self.maps == 2:
                threading.Timer(0.05, kill).start()
            return two.map(function, items)

    slow_fitness = type("Slow", (), {"family": fitness.family, "__call__": lambda self, genes: slow(genes)})()
    assert evaluated(slow_fitness, Killing(), chunk_size=25) == alone
    two.map(lambda _: None, range(8))  # a worker killed when it had nothing to do is noticed here
    assert two.replaced > replaced


def test_work_that_kills_every_worker_ends_in_one_sentence(two):
    def deadly(i):
        import os

        if i == 1:
            os._exit(1)
        return i

    with pytest.raises(ClusterError, match=r"^5 workers died one after the other on the same work") as caught:
        two.map(deadly, range(3))
    assert "\n" not in str(caught.value)
    assert two.map(lambda i: i, range(3)) == [0, 1, 2]


def test_what_cannot_travel_is_refused_in_one_sentence(two):
    lock = threading.Lock()
    with pytest.raises(
        WorkersError, match=r"the function .*<lambda> cannot be sent to Ray's workers \(.*lock"
    ):
        two.map(lambda i: lock, [1])
    with pytest.raises(WorkersError, match="an item cannot be sent to Ray's workers"):
        two.map(abs, [lock])
    assert two.map(abs, [-1]) == [1]


def test_a_full_object_store_stops_in_one_sentence(two, monkeypatch):
    def full(_):
        raise two._ray.exceptions.ObjectStoreFullError("The object store is full")

    monkeypatch.setattr(two._ray, "put", full)
    with pytest.raises(
        ClusterError, match=r"object store cannot take more .* then resume the run$"
    ) as caught:
        two.map(lambda i: i + 1, [1])
    assert "\n" not in str(caught.value)


def fetch(url, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return answer.read().decode()


def published(text, run):
    """Return name to value of the gauges of a run in Prometheus text."""
    found = {}
    for line in text.splitlines():
        if line.startswith("ray_regime_conductor_") and f'run="{run}"' in line:
            name, value = line.split("{")[0], line.rsplit(" ", 1)[1]
            found[name.removeprefix("ray_regime_conductor_")] = float(value)
    return found


FOLDS = [
    "market.synthetic.n_bars=6000", "detector.name=volatility", "specialists.regimes=[trending]",
    "folds={span: month, train_spans: 5, validation_spans: 1, embargo_bars: 24, latest: 2}",
    "specialists.hyperparameters={population_size: 16, n_generations: 2}", "specialists.generalist=false",
    "specialists.fitness={folds: 4, min_trades: 2}", "random_routing.draws=1", "rivals=[equal]",
    "forecast_features.names=[return_1,return_24,zscore_24,volatility_24]",
    "forecasters=[{name: logistic, label: {horizon: 4h}, span: month, train_spans: 4}]",
    "permutation={count: 1, span: month, population_size: 16, n_generations: 1}",
    "evidence={comparisons: false, paths: 100, overfitting_paths: 20}",
    "robustness={sigmas: [0.1], draws: 1, cost_factors: [0.0, 1.0]}",
]  # fmt: skip


def validated(runs, *arguments):
    """What a validation leaves that does not tell where, when and on what it ran: SHA-256 by file."""
    from ensemble.validate import main

    given = [part for setting in FOLDS for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main(["--runs", str(runs), *arguments, *given])
    assert end.value.code == 0
    (folder,) = runs.glob("validate-*")
    told = ("config.yaml", "log.txt", "manifest.json", "report.json", "report.md", "validation.html")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in told]
    found = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    report = json.loads((folder / "report.json").read_text())
    report["data"].pop("run")
    return found | {"report.json": hashlib.sha256(json.dumps(report).encode()).hexdigest()}


@pytest.mark.usefixtures("blank_pictures")
def test_folds_and_shuffled_markets_on_ray_leave_the_bytes_of_one_process(two, tmp_path, monkeypatch):
    from ensemble import running

    alone = validated(tmp_path / "serial/runs", "--workers", "serial")
    sent = two.messages
    with monkeypatch.context() as patch:  # another Ray would starve beside that of this file
        patch.setattr(running, "open_workers", lambda config, console: contextlib.nullcontext(two))
        spread = validated(tmp_path / "ray/runs", "--workers", "ray")
    assert two.messages >= sent + 3  # two folds and a shuffled market
    assert spread == alone
    assert {"strategies/fold-001/strategy.json", "strategies/fold-002/strategy.json"} <= set(alone)
    assert any(name.startswith("checkpoints/fold-002") for name in alone)
    # The comparison would see another search.
    other = validated(tmp_path / "other/runs", "--workers", "serial", "--seed", "8")
    assert other["strategies/fold-001/strategy.json"] != alone["strategies/fold-001/strategy.json"]
    assert other["report.json"] != alone["report.json"]


def test_gauges_are_read_over_http_as_prometheus_text(two):
    gauges = {
        "generation": 7,
        "best": -1.25,
        "diversity": 0.5,
        "evaluations_per_second": 1e4,
        "cache_hits": 3,
    }
    two.publish({**gauges, "generation": 6}, run="old-run")
    two.publish(gauges, run="r-42")
    deadline, found = time.monotonic() + PATIENCE, {}
    while found != gauges and time.monotonic() < deadline:
        time.sleep(0.2)
        text = fetch(two.metrics_url)
        found = published(text, "r-42")
    assert found == gauges
    assert published(text, "old-run")["generation"] == 6
    assert "# TYPE ray_regime_conductor_best gauge" in text
    assert published(text, "no-such-run") == {}
    with pytest.raises(ValueError, match="gauge 'cache hits' must be named"):
        two.publish({"cache hits": 1.0})


def test_the_dashboard_wants_the_token_and_leads_to_the_gauges(two):
    import ray

    assert fetch(two.dashboard_url).startswith("<!doctype html>")
    for path in ("/api/prometheus/sd", "/nodes?view=summary"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(two.dashboard_url + path)
        assert refused.value.code == 401
        refused.value.close()
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token"]
    token = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout.strip()
    where, deadline, targets = urlsplit(two.metrics_url).netloc, time.monotonic() + PATIENCE, []
    while where not in targets and time.monotonic() < deadline:
        time.sleep(0.2)
        found = json.loads(fetch(two.dashboard_url + "/api/prometheus/sd", token))
        targets = [target for group in found for target in group["targets"]]
    assert where in targets
    assert two.dashboard_hint.startswith(f"Ray dashboard: {two.dashboard_url} (")
    assert "ray get-auth-token" in two.dashboard_hint
    written = Path.home() / ".ray" / "auth_token"
    if written.exists():
        assert stat.S_IMODE(written.stat().st_mode) & 0o077 == 0
    assert ray.is_initialized()


def listening(process_numbers):
    """Return the addresses on which processes listen, of both protocols."""
    import psutil  # comes with Ray

    found = set()
    for number in process_numbers:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in psutil.Process(number).net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM:
                    found.add(connection.laddr.ip)
    return found


def is_loopback(address):
    return address == "::1" or address.removeprefix("::ffff:").startswith("127.")


def of_ray(two):
    import ray  # noqa: F401 - it brings psutil

    import psutil  # isort: skip

    children = psutil.Process().children(recursive=True)
    workers = set(two.map(lambda _: os.getpid(), range(8)))
    assert workers <= {child.pid for child in children}
    return [os.getpid(), *(child.pid for child in children)]


def test_nothing_that_ray_starts_listens_beyond_loopback(two):
    addresses = listening(of_ray(two))
    assert addresses  # it does listen
    assert [address for address in addresses if not is_loopback(address)] == []


def test_the_search_for_sockets_finds_one_that_is_open_to_the_world():
    with socket.create_server(("0.0.0.0", 0)), socket.create_server(("127.0.0.1", 0)):
        addresses = listening([os.getpid()])
    assert "127.0.0.1" in addresses
    assert "0.0.0.0" in addresses
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")
    assert not is_loopback("::ffff:192.0.2.2")


def test_a_second_mapper_shares_the_ray_and_leaves_it_running(two):
    # Both CPUs are taken, so a further worker must wait; give it one.
    import ray

    second = None
    ray.kill(two._actors[-1].handle)
    try:
        second = mapper("ray", 1)
        assert second.metrics_url == two.metrics_url
        assert second.map(lambda i: -i, range(3)) == [0, -1, -2]
    finally:
        if second is not None:
            second.close()
            second.close()
    with pytest.raises(RuntimeError, match="closed mapper"):
        second.map(abs, [1])
    assert ray.is_initialized()
    assert two.map(lambda i: -i, range(3)) == [0, -1, -2]


def run_script(name, *arguments, **options):
    script = Path(__file__).parent / f"{name}.py"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        # What a shell without job control starts in the background ignores Ctrl-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip


def ended(process, patience):
    """Return what a process has printed until its end; one that does not end is killed."""
    try:
        return process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"still running after {patience:g} s; it printed {out!r} and {err!r}")


def of_session(mark):
    """Return processes that were started with a mark in their environment."""
    import ray  # noqa: F401 - it brings psutil

    import psutil  # isort: skip

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_two_nodes_evolve_to_the_hash_of_one_process_whatever_is_killed():
    with run_script("two_nodes") as process:
        out, err = ended(process, 4 * PATIENCE)
    assert process.returncode == 0, err
    told = json.loads(out.splitlines()[-1])
    alone = told.pop("alone")
    assert told.pop("nodes") in (1, 2)  # both workers may have found room on the second node
    assert told.pop("replaced") >= 2
    assert told == dict.fromkeys(
        ["one worker", "two workers", "three workers", "worker killed", "node removed", "store filled"], alone
    )


@pytest.mark.parametrize("end", ["raylet", "gcs_server", "interrupt"])
def test_a_run_that_loses_its_ray_or_is_interrupted_ends_clean(end, monkeypatch):
    mark = f"{os.getpid()} {end}"
    monkeypatch.setenv("MARK", mark)
    with run_script("endless", "" if end == "interrupt" else end) as process:
        if end == "interrupt":
            assert process.stdout.readline() == "mapping\n"
            process.send_signal(signal.SIGINT)
        _, err = ended(process, 2 * PATIENCE)
    last = err.strip().splitlines()[-1]
    if end == "interrupt":
        assert (process.returncode, last) == (130, "interrupted")
    else:
        assert process.returncode == 1, err
        assert last.startswith(f"error: Ray's process {end}")
        assert last.endswith("the run can be resumed")
    assert "Traceback" not in err
    deadline = time.monotonic() + PATIENCE
    while of_session(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert of_session(mark) == []
