"""Runs as tasks of a Ray cluster that is there already."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from evenhand.studies.engines import TICK, TRIES, Event, Finished, Quiet, Started
from evenhand.studies.store import Outcome, failed_record
from evenhand.studies.worker import Job, perform
from evenhand.validation import UserError

_PATIENCE = 5.0  # seconds that an address has to answer


class RayEngine:
    """Tasks of a cluster; Ray starts a lost worker's run again.

    The machines need evenhand, and the study's working folder under the same path for runs to be resumed elsewhere.

    Args:
        address: The cluster: `auto`, HOST:PORT or ray://HOST:PORT.
        jobs: How many tasks at a time; as many as the cluster has room for if None.
    """

    def __init__(self, address: str, jobs: int | None = None) -> None:
        self.address = address
        self.jobs = jobs
        self.ray = _connected(address)

    def events(self, jobs: Sequence[Job]) -> Iterator[Event | Quiet]:
        """As every engine's; the cluster is left at the end."""
        ray = self.ray
        # A task that asks for more than any machine has would wait for ever.
        most = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
        waiting = deque(replace(job, threads=max(1, min(job.threads, most))) for job in jobs)
        active: dict[Any, Job] = {}
        room = self.jobs or len(jobs)
        try:
            while waiting or active:
                while waiting and len(active) < room:
                    job = waiting.popleft()
                    needs = {"num_cpus": job.threads, "num_gpus": _gpus(job)}
                    task = ray.remote(max_retries=TRIES - 1, **needs)(perform)
                    active[task.remote(job)] = job
                    yield Started(job)
                ready, _ = ray.wait(list(active), num_returns=1, timeout=TICK)
                if not ready:
                    yield Quiet()
                for reference in ready:
                    job = active.pop(reference)
                    yield Finished(job, self._outcome(reference, job))
        finally:
            for reference in active:
                ray.cancel(reference, force=True)
            ray.shutdown()

    def _outcome(self, reference: Any, job: Job) -> Outcome:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            return Outcome(failed_record(job.run, f"Ray lost the run {TRIES} times: {type(error).__name__}: {reason}"))


def _gpus(job: Job) -> int:
    return 1 if job.device == "cuda" else 0


def _connected(address: str) -> Any:
    """The ray module, connected to the cluster.

    Raises:
        UserError: If Ray isn't installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("The engine 'ray' needs Ray: install it with pip install 'evenhand[ray]'.") from error
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"There is no Ray cluster at the address '{address}' ({reason[:200]}); start one with `ray start --head`, "
            "or set RAY_AUTH_MODE=token and the cluster's token where it asks for one."
        ) from error
    return ray


def _check_address(address: str) -> None:
    """Refuse an address where nobody listens at once; Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"The address of a Ray cluster must be auto, HOST:PORT or ray://HOST:PORT. Got '{address}'.")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"There is no Ray cluster at the address '{address}' ({error}); start one with `ray start --head`."
        ) from error
