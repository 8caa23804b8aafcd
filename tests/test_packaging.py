from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import evenhand

ROOT = Path(__file__).parents[1]


def run(*words: str | Path, cwd: Path | None = None) -> str:
    # no package of this environment may leak into the new one
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("evenhand-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "evenhand/py.typed",
        "evenhand/report/page.html.j2",
        "evenhand/report/audit.html.j2",
        "evenhand/report/audit.md.j2",
        "evenhand/report/table.html.j2",
        "evenhand/report/page.css",
    } <= set(names)
    assert not [name for name in names if name.startswith("tests")]

    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    run(binaries / "python", "-m", "pip", "install", "--quiet", wheel)
    listed = run(binaries / "evenhand", "methods", cwd=tmp_path)
    assert all(name in listed for name in ("erm", "gce", "edge", "pgd"))
    assert run(binaries / "python", "-m", "evenhand", "--version", cwd=tmp_path) == f"evenhand {evenhand.__version__}\n"


def test_every_dependency_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [word for extra in project["optional-dependencies"].values() for word in extra]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    pinned = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    from packaging.requirements import Requirement

    for requirement in map(Requirement, project["dependencies"] + extras):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_the_version_stands_in_one_place() -> None:
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == evenhand.__version__
    assert '"version"' in (ROOT / "pyproject.toml").read_text().split("dynamic = ")[1].split("\n")[0]


def test_importing_evenhand_changes_nothing_global() -> None:
    script = """
import logging, random, sys
before = random.getstate(), list(logging.getLogger().handlers), logging.getLogger().level
import evenhand
assert "torch" not in sys.modules, "import evenhand must be quick"
import numpy, torch
state = torch.get_rng_state(), numpy.random.get_state()[1].tolist(), torch.get_default_dtype()
flags = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
for name in evenhand.__all__:
    getattr(evenhand, name)
evenhand.EDGE(), evenhand.PGD(), evenhand.ColoredDigits()
assert before == (random.getstate(), list(logging.getLogger().handlers), logging.getLogger().level)
assert torch.equal(state[0], torch.get_rng_state())
assert state[1:] == (numpy.random.get_state()[1].tolist(), torch.get_default_dtype())
after = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
assert flags == after
assert sorted(evenhand.__all__) == dir(evenhand)
"""
    run(sys.executable, "-W", "ignore", "-c", script)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'EGDE'"):
        evenhand.EGDE  # noqa: B018


def test_the_repository_stays_small() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    paths = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    assert len(paths) <= 600
    assert max(path.stat().st_size for path in paths) < 1_000_000
