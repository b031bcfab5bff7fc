"""Evolves on a simulated cluster of two nodes, with losses, and prints the hash of each search as JSON."""

import hashlib
import json
import os
import signal
import threading

import numpy as np

from compute.workers import SerialMapper, mapper
from ga.controls import GAControls, Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.space import GenomeSpace

SPACE = GenomeSpace(tuple(f"x{i}" for i in range(6)), np.zeros(6), np.ones(6), ("real",) * 6, name="cube")
STORE = 80_000_000  # bytes of each node's object store, the least that Ray takes


def bowl(genes):
    import time

    time.sleep(0.01)
    return -((genes - 0.3) ** 2).sum(axis=1)


def evolved(workers, harm=None, *arguments):
    """Return a hash of everything a search has found, and of how many evaluations it counted.

    Harm is done in the midst of the third generation.
    """
    run = Hyperparameters(population_size=60, n_generations=8, patience=0)
    evolution = Evolution(SPACE, run, np.random.default_rng(3))
    evaluator, digest = Evaluator(bowl, SPACE, workers), hashlib.sha256()
    doing = threading.Timer(0.01, harm, arguments)
    while not evolution.finished:
        if harm is not None and evolution.progress.generation == 3:
            doing.start()
        genes = evolution.ask(GAControls())
        fitness = evaluator(genes)
        digest.update(genes.tobytes() + fitness.tobytes())
        evolution.tell(fitness)
    if harm is not None:
        doing.join()
    digest.update(str(evaluator.evaluations).encode())
    return digest.hexdigest()


def look(_):
    import time

    time.sleep(0.05)  # long enough that every worker gets its share
    return os.environ["RAY_RAYLET_PID"], os.getpid()


def main() -> None:
    found = {"alone": evolved(SerialMapper())}
    # As compute.workers does for a Ray of this machine: the nodes listen on loopback only.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    # The head has room for one worker, so any two are on two nodes or both away from it.
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False},
    )
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    try:
        for name, n in (("one worker", 1), ("two workers", 2)):
            with mapper("ray", n, address=cluster.address) as workers:
                found[name] = evolved(workers)
        with mapper("ray", 3, address=cluster.address) as workers:
            where = workers.map(look, range(30))
            head = str(cluster.head_node.all_processes["raylet"][0].process.pid)
            away = {process for raylet, process in where if raylet != head}
            found["nodes"] = len({raylet for raylet, _ in where})
            found["three workers"] = evolved(workers)
            found["worker killed"] = evolved(workers, os.kill, away.pop(), signal.SIGKILL)
            import ray

            full = [ray.put(np.zeros(STORE // 16)) for _ in range(3)]  # more than it holds
            found["store filled"] = evolved(workers)
            del full
            found["node removed"] = evolved(workers, cluster.remove_node, node)
            found["replaced"] = workers.replaced
    finally:
        cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
