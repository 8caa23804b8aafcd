"""What an engine is: it carries out runs, some at a time, and tells what happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from evenhand.evaluation.progress import Measurement
from evenhand.studies.store import Outcome
from evenhand.studies.worker import Job

TRIES = 3  # starts of a run whose process is lost each time, before it counts as failed


@dataclass(frozen=True)
class Started:
    """A run has started."""

    job: Job


@dataclass(frozen=True)
class Stage:
    """A run's stage has done `done` of its `total` steps."""

    job: Job
    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Measured:
    """A run's stage has ended an epoch."""

    job: Job
    measurement: Measurement


@dataclass(frozen=True)
class Lost:
    """A run's process has died; the run starts again."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Finished:
    """A run is done, or has failed."""

    job: Job
    outcome: Outcome


@dataclass(frozen=True)
class Quiet:
    """Nothing has happened for some seconds, so that whoever watches can say how far it is."""


TICK = 5.0
"""Seconds after which an engine tells that it is quiet."""

Event: TypeAlias = Started | Stage | Measured | Lost | Finished


class Engine(Protocol):
    """Carries out runs."""

    def events(self, jobs: Sequence[Job]) -> Iterator[Event | Quiet]:
        """Carry out all jobs; every one ends with `Finished`. Closing the iterator stops what is going on."""
        ...
