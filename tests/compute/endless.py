"""Maps on Ray until something ends it; kills a process of its own Ray if one is named."""

import sys
import threading
import time

from compute.workers import mapper
from configs.command import command


def kill(name: str) -> None:
    import psutil  # comes with Ray

    for process in psutil.Process().children(recursive=True):
        if process.name() == name:
            process.kill()


def work() -> None:
    with mapper("ray", 1) as workers:
        print("mapping", flush=True)
        if sys.argv[1]:
            threading.Timer(0.5, kill, [sys.argv[1]]).start()
        while True:
            workers.map(lambda i: time.sleep(0.02), range(10))


if __name__ == "__main__":
    command(work)([])
