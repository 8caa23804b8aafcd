"""Runs on this machine: each in a process of its own, forked from one that has torch loaded already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from evenhand.evaluation.progress import Measurement
from evenhand.studies.engines import TICK, TRIES, Event, Finished, Lost, Measured, Quiet, Stage, Started
from evenhand.studies.store import Outcome, failed_record
from evenhand.studies.worker import Job, perform


class LocalEngine:
    """Some processes at a time.

    Args:
        jobs: How many.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def events(self, jobs: Sequence[Job]) -> Iterator[Event | Quiet]:
        """As every engine's."""
        context = _context()
        waiting = deque(jobs)
        tries: dict[str, int] = {}
        active: dict[Connection, tuple[Job, Any]] = {}
        try:
            while waiting or active:
                while waiting and len(active) < self.jobs:
                    job = waiting.popleft()
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(job, theirs), daemon=True)
                    process.start()
                    theirs.close()  # so that the process's death is the end of the pipe
                    active[ours] = job, process
                    yield Started(job)
                told_by = connection.wait(list(active), TICK)
                if not told_by:
                    yield Quiet()
                for ready in told_by:
                    assert isinstance(ready, Connection)
                    job, process = active[ready]
                    try:
                        told = ready.recv()
                    except (EOFError, OSError):
                        told = None
                    if isinstance(told, tuple):
                        yield Stage(job, *told)
                        continue
                    if isinstance(told, Measurement):
                        yield Measured(job, told)
                        continue
                    del active[ready]
                    ready.close()
                    process.join()
                    if isinstance(told, Outcome):
                        yield Finished(job, told)
                        continue
                    reason = _death(process.exitcode)
                    key = job.run.run_hash
                    tries[key] = tries.get(key, 0) + 1
                    if tries[key] < TRIES:
                        waiting.appendleft(job)
                        yield Lost(job, reason)
                    else:
                        error = f"its process {reason}, {TRIES} times"
                        yield Finished(job, Outcome(failed_record(job.run, error)))
        finally:
            for _, process in active.values():
                process.kill()  # a run can be killed at any moment and goes on later
            for ready, (_, process) in active.items():
                process.join()
                ready.close()


def _context() -> Any:
    """Processes come from a server that has imported what a run needs: seconds for each run otherwise."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The program itself too, where it runs: every process would import it anew.
    program = [name for name in ("evenhand.cli.parser",) if name in sys.modules]
    context.set_forkserver_preload(["evenhand.studies.worker", *program])
    return context


def _work(job: Job, told: Connection) -> None:
    """What a run's process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal: the study decides
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    told.send(perform(job, _Telling(told)))


class _Telling:
    """Sends the progress of a run through the pipe."""

    def __init__(self, told: Connection) -> None:
        self.told = told

    def stage(self, name: str, done: int, total: int) -> None:
        self.told.send((name, done, total))

    def measured(self, measurement: Measurement) -> None:
        self.told.send(measurement)


def _end_with_the_study() -> None:
    """Nothing goes on once the study is gone, even by kill -9."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with code {code}"
