"""``scripts/Dockerfile``, read where there is no Docker: what it starts from, copies, runs, and who runs it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "scripts" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def given(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def test_the_base_image_is_a_pinned_python_that_the_package_allows() -> None:
    assert instructions()[0][0] == "FROM"
    (image,) = given("FROM")
    match = re.fullmatch(r"python:3\.(\d+)\.\d+-slim-\w+", image)
    assert match is not None
    least = re.fullmatch(
        r">=3\.(\d+)", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert least is not None and int(least[1]) <= int(match[1])


def test_what_it_copies_is_there_and_not_ignored() -> None:
    lines = (ROOT / "scripts" / "Dockerfile.dockerignore").read_text().split()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    sources = {source for rest in given("COPY") for source in shlex.split(rest)[:-1]}
    assert lines[0] == "*" and sources == let_in
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    for source in sources:
        assert (ROOT / source).exists()
        assert not tracked or any(path == source or path.startswith(f"{source}/") for path in tracked)


def test_every_command_parses_and_the_installation_is_the_readme_s() -> None:
    for command in given("RUN"):
        assert subprocess.run(["sh", "-n", "-c", command], capture_output=True).returncode == 0
    readme = re.search(r"\.venv/bin/pip (install -e \.) ", (ROOT / "README.md").read_text())
    assert readme is not None
    assert any(run.replace(" --no-cache-dir", "") == f"pip {readme[1]}" for run in given("RUN"))


def test_one_argument_chooses_the_build_of_torch() -> None:
    assert given("ARG") == ['TORCH_INDEX=""']
    (choice,) = [run for run in given("RUN") if "TORCH_INDEX" in run]
    for index, called in (("", ""), ("an-index", "install --no-cache-dir torch --index-url an-index\n")):
        said = subprocess.run(
            ["sh", "-c", f'pip() {{ echo "$@"; }}; {choice}'],
            env={"TORCH_INDEX": index},
            capture_output=True,
            text=True,
        )
        assert (said.returncode, said.stdout) == (0, called)
    order = [rest for word, rest in instructions() if word == "RUN"]
    assert order.index(choice) < next(i for i, run in enumerate(order) if "-e ." in run)


def test_nobody_runs_as_root_and_the_command_is_rlkit() -> None:
    words = [word for word, _ in instructions()]
    assert given("USER") == ["rlkit"] and "RUN" not in words[words.index("USER") :]
    (entry,), (command,) = given("ENTRYPOINT"), given("CMD")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(entry)[0] in scripts and json.loads(command) == ["--help"]
