"""How quickly a notebook kernel answers `1+1` while a sweep runs beside it: the 95th percentile, in ms.

    python tests/benchmarks/kernel_answers.py [--seconds 60]

The kernel has the study open and looks at it once a second, as the dashboard does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from jupyter_client.manager import start_new_kernel

from workbench.study import Study, make_task
from workbench.sweep import space_of
from workbench.tuning.goal import Goal

WATCH = """
from workbench.study import Study
from workbench.widgets.watcher import Watcher
watcher = Watcher(lambda seen: None)
watcher.study = Study({folder!r})
watcher.start()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as place:
        task = make_task("demo")
        task.prepare()
        study = Study(Path(place) / "study", task)
        techniques = ("bf16", "static_int8", "prune")
        study.start(space_of(techniques, ("eager", "compiled", "onnxruntime", "openvino")), goal=Goal(trials=None))
        manager, client = start_new_kernel()
        try:
            client.execute_interactive(WATCH.format(folder=str(study.folder)), timeout=60)
            times = []
            end = time.time() + seconds
            while time.time() < end and study.status().state == "running":
                began = time.perf_counter()
                client.execute_interactive(
                    "1+1", timeout=60, store_history=False, silent=False, output_hook=lambda _: None
                )
                times.append(1e3 * (time.perf_counter() - began))
                time.sleep(0.25)
        finally:
            manager.shutdown_kernel(now=True)
            study.stop()
        p50, p95, worst = np.percentile(times, (50, 95, 100))
        print(f"{len(times)} answers while a sweep ran: p50 {p50:.0f} ms, p95 {p95:.0f} ms, slowest {worst:.0f} ms")


if __name__ == "__main__":
    main()
