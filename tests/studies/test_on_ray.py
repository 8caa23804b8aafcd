"""Studies on a real Ray cluster of this machine, started here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import evenhand as eh
from evenhand.studies.engines import Event, Finished
from evenhand.studies.on_ray import RayEngine
from study_runs import records, tables, write_quick

pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Cluster:
    """A head node with two places, which takes part in no other cluster."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        ray = str(Path(sys.executable).with_name("ray"))
        words = [ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2"]
        words += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
        self.process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"Ray runtime started" in line:
                break
        else:
            raise AssertionError("the cluster did not start")
        # its output must not fill the pipe
        self.reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.reader.start()

    def workers(self) -> list[psutil.Process]:
        """The processes that carry out runs now."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] == ["ray::perform"]:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def stop(self) -> None:
        processes = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        self.process.wait(300)
        for process in psutil.wait_procs(processes, timeout=10)[1]:
            process.kill()
        self.reader.join(300)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # a short name: Ray makes sockets below it, whose paths have a limit
    made = Cluster(tmp_path_factory.mktemp("r"))
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    file = write_quick(tmp_path / "a", 2)
    eh.study(file, output_dir="a/runs", results_dir="a/results")
    write_quick(tmp_path / "b", 2)
    killed: list[int] = []
    finished: list[str] = []
    over = threading.Event()

    def kill_two() -> None:
        while len(killed) < 2 and not over.is_set():
            for worker in cluster.workers():
                if worker.pid not in killed and len(killed) < 2:
                    time.sleep(0.2)  # within its run
                    worker.send_signal(signal.SIGKILL)
                    killed.append(worker.pid)
                    known = len(finished)
                    while len(finished) == known and not over.is_set():  # the other goes on
                        time.sleep(0.02)
            time.sleep(0.02)

    class Watch:
        def event(self, event: Event) -> None:
            if isinstance(event, Finished):
                finished.append(event.job.name)

    killer = threading.Thread(target=kill_two)
    killer.start()
    try:
        done = eh.study(
            "b/quick.yaml",
            engine="ray",
            address=cluster.address,
            output_dir="b/runs",
            results_dir="b/results",
            watch=Watch(),
        )
    finally:
        over.set()
        killer.join()
    assert len(killed) == 2
    assert len(finished) == 8
    assert set(done.states.values()) == {"done"}
    assert len(records(Path("b/results"))) == 8
    assert tables(Path("b/results")) == tables(Path("a/results"))


def refusal(address: str) -> str:
    with pytest.raises(eh.UserError) as caught:
        RayEngine(address)
    return str(caught.value)


def test_a_cluster_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = refusal(address)
    assert message.startswith(f"There is no Ray cluster at the address '{address}' (")
    assert message.endswith("; start one with `ray start --head`.")
    assert refusal("nonsense") == (
        "The address of a Ray cluster must be auto, HOST:PORT or ray://HOST:PORT. Got 'nonsense'."
    )


def test_no_cluster_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def none(**_options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", none)
    assert refusal("auto") == (
        "There is no Ray cluster at the address 'auto' (Could not find any running Ray instance.); start one with `ray "
        "start --head`, or set RAY_AUTH_MODE=token and the cluster's token where it asks for one."
    )


def test_ray_that_is_not_installed(tmp_path: Path) -> None:
    write_quick(tmp_path, 1)
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "import evenhand as eh\n"
        "eh.study('quick.yaml', engine='ray', address='127.0.0.1:1')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].endswith(
        "UserError: The engine 'ray' needs Ray: install it with pip install 'evenhand[ray]'."
    )
    assert not (tmp_path / "runs").exists()
