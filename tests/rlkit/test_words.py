"""What people type first: each line with its answer, code and text; paths of any characters; files of settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import toy  # noqa: F401  # registers its records
import yaml

from rlkit import registry
from rlkit.algorithms.signatures import comments
from rlkit.cli import VERBS, main
from rlkit.cli.facts import agent_facts, settings
from rlkit.cli.words import suggestions

BC = "train agent=bc env=point-noisy --cfg "
UNDERSTOOD = "rlkit: understood as rlkit "


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "study.yaml").write_text("seed: 0\n")


# What is typed, the exit code, and text of either stream.
GUESSES: list[tuple[str, int, str]] = [
    (BC + "total_timesteps=1e6", 0, "total_timesteps: 1000000\n"),
    (BC + "total_timesteps=2.5e4", 0, "total_timesteps: 25000\n"),
    (BC + "total_timesteps=100_000", 0, "total_timesteps: 100000\n"),
    (BC + "total_timesteps=1.5", 2, "total_timesteps: "),
    (BC + "steps=1000", 0, "total_timesteps: 1000\n"),
    (BC + "n_steps=1000", 0, "total_timesteps: 1000\n"),
    (BC + "timesteps=1e3", 0, "total_timesteps: 1000\n"),
    ("train agent=orpo env=tomato n_steps=5 --cfg", 2, "expected total_timesteps= for the run's or agent.n_steps="),
    (BC + "eval_freq=7", 0, "eval_every: 7\n"),
    ("train --agent bc --env point-noisy --seed 3 --cfg", 0, "seed: 3\n"),
    ("train --agent=bc --env=point-noisy --seed=3 --cfg", 0, UNDERSTOOD + "train agent=bc env=point-noisy seed=3"),
    ("train agent=bc --env point-noisy --total-timesteps 1e3 --cfg", 0, "total_timesteps: 1000\n"),
    ("train bc point-noisy columns.actions=a,b --cfg", 0, "actions:\n    - a\n    - b\n"),
    ("train bc point-noisy bounds.a=0,100 n_actions=4 --cfg", 0, "a:\n    - 0\n    - 100\n"),
    ("train bc point-noisy env.columns.actions=[a,b] env.bounds.a=[0,1] --cfg", 0, "actions:\n    - a\n    - b\n"),
    ("train agent=bc env=point-noisy --no-progress-bar --overwrite --cfg", 0, "progress_bar: false\n"),
    ("train --algo td3bc --env hopper-medium -n 1e5 --cfg", 0, "total_timesteps: 100000\n"),
    ("train agent=PRDC env=Hopper-medium --cfg", 0, UNDERSTOOD + "train agent=prdc env=hopper-medium"),
    ("train agent=TD3BC env=hopper_medium --cfg", 0, "name: hopper-medium\n"),
    ("train agent=drrpo_features env=american_put --cfg", 0, "name: drrpo-features\n"),
    ("train env=hopper-medium-v2 agent=bc --cfg", 0, "name: hopper-medium\n"),
    ("train env=hopper-medium-v0 agent=bc", 2, "unknown env 'hopper-medium-v0'; did you mean 'hopper-medium'"),
    ("train env=Hopper-v5 agent=bc", 2, "the agent learns from data, expected env=hopper-medium, env="),
    ("train env=hopper agent=bc", 2, "the agent learns from data, expected env=hopper-medium, env="),
    ("train env=hoper agent=bc", 2, "did you mean 'hopper-medium', '"),
    ("train env=walker agent=td3bc", 2, "did you mean 'walker2d-medium', '"),
    ("train env=hoper agent=beer", 2, "did you mean 'hopper'"),
    ("train env=nothing-like-it-at-all agent=bc", 2, "expected a record (rlkit list envs), a file, or an id"),
    (BC + "agent.lr=1e-3", 0, "learning_rate: 0.001\n"),
    (BC + "lr=1e-3", 0, UNDERSTOOD + "train agent=bc env=point-noisy agent.learning_rate=1e-3"),
    (BC + "batch_size=64", 0, "batch_size: 64\n"),
    (BC + "agent.batch_size=1e2", 0, "batch_size: 100\n"),
    ("train agent=td3bc env=point-noisy gamma=0.9 --cfg", 0, "discount: 0.9\n"),
    ("train agent=iql env=point-noisy tau=0.9 --cfg", 2, "'tau' of iql may be either"),
    (BC + "gama=0.9", 2, "unknown key 'gama'"),
    (BC + "device=gpu", 0, "device: cuda\n"),
    (BC + "--cuda engine=graph", 0, "device: cuda\n"),
    (BC + "--gpu", 0, "device: cuda\n"),
    (BC + "--cpu", 0, "device: cpu\n"),
    ("train bc point-noisy --cfg", 0, UNDERSTOOD + "train agent=bc env=point-noisy"),
    ("train hopper-medium prdc seed=3 --cfg", 0, "seed: 3\n"),
    ("train prcd hopper-medium", 2, "cannot read 'prcd', expected key=value; did you mean 'prdc'?"),
    ("train agent=prdc", 2, "env= is missing, expected a line like rlkit train agent=prdc env=hopper-medium"),
    ("train agent=bq", 2, "rlkit train agent=bq env=tsp"),
    ("train env=hopper-medium", 2, "rlkit train agent=td3bc env=hopper-medium"),
    ("train RUN", 2, "RUN is a run, expected rlkit resume RUN"),
    ("train --resume RUN", 2, "expected rlkit resume RUN"),
    ("train study.yaml", 2, "expected rlkit train --config study.yaml"),
    ("study.yaml", 2, "expected rlkit train --config study.yaml"),
    ("train --fast agent=bc", 2, "unknown option '--fast'"),
    ("train -q agent=bc", 2, "unknown option '-q'"),
    ("run agent=bc env=point-noisy --cfg", 0, UNDERSTOOD + "train agent=bc env=point-noisy"),
    ("tensorboard runs", 2, "expected tensorboard --logdir runs"),
    (BC + "seed=0..2", 2, UNDERSTOOD + "train agent=bc env=point-noisy seed=0,1,2 -m"),
    (BC + "seed=3..2", 2, "seed: Value '3..2'"),
    (BC + "seed=0..99999", 2, "seed: Value '0..99999'"),
    (BC + "seed=[4,5]", 2, UNDERSTOOD + "train agent=bc env=point-noisy seed=4,5 -m"),
    (BC + "seeds=7", 0, "seed: 7\n"),
    (BC + "seed=0,1", 2, "--cfg shows the configuration of one run"),
    (
        "train -m agent=td3bc,prdc env=point-noisy agent.beta=2",
        2,
        "agent=td3bc of this sweep has no 'beta'",
    ),
    ("train -m agent=td3bc,prdc env=point-noisy agent.betta=2", 2, "unknown key 'agent.betta'"),
    ("evaluate nowhere", 2, UNDERSTOOD + "eval nowhere"),
    ("test nowhere", 2, "nowhere: no such artefact"),
    ("enjoy nowhere", 2, UNDERSTOOD + "eval nowhere"),
    ("eval", 2, "usage: rlkit eval RUN|ARTEFACT"),
    ("eval nowhere --episodes 0", 2, "episodes=0 is out of range"),
    ("resume", 2, "usage: rlkit resume RUN"),
    ("plot", 2, "RUN"),
    ("agents", 0, "prdc"),
    ("envs", 0, "hopper-medium"),
    ("list algorithms", 0, "prdc"),
    ("list agent", 0, "prdc"),
    ("list", 2, "agents|envs"),
    ("list datasets", 0, "hopper-medium"),
    ("datasets", 0, "hopper-medium"),
    ("data", 2, "usage: rlkit data"),
    ("-v", 0, "rlkit 0."),
    ("-V", 0, "rlkit 0."),
    ("version", 0, "rlkit 0."),
    ("--fast", 2, "unknown option '--fast', expected a verb first"),
    ("trian", 2, "unknown verb 'trian'; did you mean 'train'?"),
    ("", 0, "usage: rlkit VERB"),
    ("help", 0, "usage: rlkit VERB"),
    ("help train", 0, "usage: rlkit train"),
    ("help nothing", 2, "unknown verb 'nothing'"),
    ("train help", 0, "usage: rlkit train"),
    ("train", 0, "usage: rlkit train"),
    ("train agent=prdc help", 0, "beta=2.0"),
    ("train -h", 0, "usage: rlkit train"),
    ("train agent=PRDC env=hopper-medium seed=0 -h", 0, "D4RL         hopper-medium-v2"),
    ("train prdc --help", 0, "weight of the state in the distance"),
    ("train agent=prcd --help", 2, "unknown agent 'prcd'; did you mean 'prdc'?"),
    ("train env=Hoper --help", 0, "hopper-medium"),
    ("eval RUN -h", 0, "usage: rlkit eval"),
    ("data check x -h", 0, "usage: rlkit data check"),
    *((f"{verb} --help", 0, f"usage: rlkit {verb}") for verb in VERBS),
]


@pytest.mark.parametrize(("line", "code", "text"), GUESSES, ids=[line for line, _, _ in GUESSES])
def test_first_guesses(line: str, code: int, text: str, capsys: Any, tmp_path: Path) -> None:
    assert main(line.split()) == code
    said = capsys.readouterr()
    assert text in said.out + said.err, said
    if code == 2:
        assert said.err.splitlines()[-1].startswith("rlkit: ") and said.out == ""
        assert len(said.err.splitlines()) <= 2  # the line as it was understood, and the sentence
    assert not (tmp_path / "runs").exists()


def test_suggestions_are_few_and_of_what_the_agent_can_be_given() -> None:
    for text in ("hoper", "hopper", "Hopper-v5", "hoper-medum", "walker", "ant", "cheetah", "zzz"):
        for kind in ("data", "environment"):
            found = suggestions(text, kind)
            assert len(found) <= 3
            assert all((registry.records()[name].data is not None) == (kind == "data") for name in found)
    assert suggestions("hoper", "data")[0] == suggestions("Hopper-v5", "data")[0] == "hopper-medium"


@pytest.mark.parametrize("name", registry.agent_names())
def test_what_is_read_of_an_agent_is_what_it_declares(name: str) -> None:
    cls, found = registry.agent_class(name), agent_facts(name)
    said = comments(cls.Config)
    assert [option.name for option in found.options] == [field.name for field in fields(cls.Config)]
    for option, field in zip(found.options, fields(cls.Config), strict=True):
        assert option.default == ("" if field.default is MISSING else repr(field.default)), option
        assert option.comment == " ".join(said.get(field.name, "").split())
    run = {key: value for key, value in found.defaults.items() if key not in ("unit", "judged")}
    assert run == cls.defaults.settings()
    assert (found.defaults["unit"], found.defaults["judged"]) == (cls.defaults.unit, cls.defaults.judged)
    assert found.learns_from == cls.learns_from


def test_what_is_read_of_the_settings_is_what_is_declared() -> None:
    from rlkit.config import TrainConfig

    names = [option.name for option in settings()]
    assert {field.name for field in fields(TrainConfig)} <= set(names) and "env.columns.actions" in names


LISTED = "import sys; from rlkit.cli import main; code = main(sys.argv[1:]); assert code == 0, code; "


@pytest.mark.parametrize(
    "line", [*(f"{verb} --help" for verb in VERBS), "train prdc env=hopper-medium --help", "agents"]
)
def test_help_imports_nothing_slow(line: str) -> None:
    source = (
        LISTED + "slow = {'torch', 'hydra', 'scipy', 'stable_baselines3'} & set(sys.modules); assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", source, *line.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_are_whole_however_narrow_the_terminal(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert main(["data", "list"]) == 0
    assert any(line.split()[:1] == ["halfcheetah-medium-expert"] for line in capsys.readouterr().out.splitlines())
    assert main(["solve", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.count("knap") == said.count("knapsack") >= 1


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rlkit", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("rlkit ")


# ---- lists of values ----------------------------------------------------------------------------------------------

FAST = "total_timesteps=4 log_every=2 eval_every=0 final_episodes=1 batch_size=4 hidden_sizes=[4] progress_bar=false"
TINY = ["train", "bc", "point-noisy", *FAST.split(), "tensorboard=false", "env.size=200"]


def seeds(folder: Path) -> list[int]:
    return sorted(json.loads(path.read_text())["seed"] for path in folder.rglob("result.json"))


def test_several_values_are_a_sweep(capsys: Any, tmp_path: Path) -> None:
    assert main([*TINY, "seed=0,1", "engine=stacked"]) == 0
    assert seeds(tmp_path / "runs") == [0, 1]
    assert "env.size=200 seed=0,1 engine=stacked -m" in capsys.readouterr().err


def test_a_file_whose_name_has_a_comma_is_no_sweep(tmp_path: Path, capsys: Any) -> None:
    write_log(tmp_path / "a,b.csv")
    assert main(["train", "agent=bc", "env=a,b.csv", "--cfg"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["env"]["path"] == str(tmp_path / "a,b.csv")


# ---- paths --------------------------------------------------------------------------------------------------------


def write_log(path: Path) -> None:
    rows = ["observation,action,reward,end", *(f"{i % 5},{i % 3 - 1},1,{int(i % 5 == 4)}" for i in range(40))]
    path.write_text("\n".join(rows) + "\n")


NAMES = [
    "with space",
    "a=b",
    "#1",
    "it's",
    'say "hi"',
    "[x]",
    "{y}",
    "(z)",
    "50%20",
    "a,b",
    "naïve",
    "データ",
    "данные",
    "back\\slash",
    "end\\",
    "a: b",
    "null",
    "1e3",
    "!tag",
    "*",
    "@x",
    "true",
    "$HOME",
    "'both'\"",
]


@pytest.mark.parametrize("name", NAMES)
def test_paths_stand_for_themselves(name: str, capsys: Any, tmp_path: Path) -> None:
    log = tmp_path / f"{name}.csv"
    write_log(log)
    for typed in ([f"env={log}"], ["env=point-noisy", f"env.path={log.name}"]):
        assert main(["train", "agent=bc", *typed, f"out={name}", "--cfg"]) == 0
        found = yaml.safe_load(capsys.readouterr().out)
        assert (found["out"], found["env"]["path"]) == (name, typed[-1].partition("=")[2])
    settings = {"agent": "bc", "env": log.name, "out": name}
    (tmp_path / "paths.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    assert main(["train", "--config", "paths.yaml", "--cfg"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert (found["out"], found["env"]["path"]) == (name, str(log))


def test_a_run_in_a_folder_of_any_name_goes_on(capsys: Any, tmp_path: Path) -> None:
    out = "lauf 1 = #2 'é' [日本]"
    assert main([*TINY, f"out={out}"]) == 0
    capsys.readouterr()
    assert main(["resume", out, "--total-timesteps", "6", "progress_bar=false"]) == 0
    assert json.loads((tmp_path / out / "result.json").read_text())["updates"] == 6
    assert main(["eval", out, "episodes=1"]) == 0
    assert main(["plot", out, "--key", "final/score", "--out", "ç d.png"]) == 0 and (tmp_path / "ç d.png").exists()


def test_paths_in_a_sweep(tmp_path: Path) -> None:
    out = "b c='${seed}' #${agent.batch_size}"
    assert main([*TINY, f"out={out}", "seed=0,1", "engine=stacked"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("b c")) == [
        "b c='0' #4",
        "b c='1' #4",
    ]


# ---- files of settings --------------------------------------------------------------------------------------------

STUDY = """# two seeds
agent:
  name: bc
  batch_size: 4
  net_arch: [4]
env: point-noisy
env.size: 200
total_timesteps: 4e0
log_every: 2
eval_every: 0
final_episodes: 1
progress_bar: no
tensorboard: false
seed: [0, 1]
engine: stacked
out: runs/s${seed}
"""


def test_a_file_of_settings_trains_and_the_command_line_wins(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    assert main(["train", "--config", "s.yaml"]) == 0
    assert seeds(tmp_path / "runs") == [0, 1]
    capsys.readouterr()
    line = ["train", "--config=s.yaml", "seed=7", "batch_size=8", "engine=auto", "agent.hidden_sizes=[3]", "--cfg"]
    assert main(line) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert (found["seed"], found["agent"]["batch_size"], found["agent"]["hidden_sizes"]) == (7, 8, [3])
    assert found["out"] == "runs/s7" and found["env"]["size"] == 200 and found["progress_bar"] is False


def test_a_runs_own_configuration_is_a_file_of_settings(capsys: Any, tmp_path: Path) -> None:
    write_log(tmp_path / "l o g.csv")
    log = [word for word in TINY if word not in ("env.size=200", "point-noisy")]
    for words, out in ((TINY, "r"), ([*log, "env=l o g.csv", "verdict=false"], "q")):
        assert main([*words, f"out={out}"]) == 0
        first = yaml.safe_load((tmp_path / out / "config.yaml").read_text())
        assert main(["train", "--config", f"{out}/config.yaml", f"out={out}2"]) == 0
        assert yaml.safe_load((tmp_path / f"{out}2" / "config.yaml").read_text()) == {**first, "out": f"{out}2"}
        assert (tmp_path / f"{out}2" / "model.rlk").read_bytes() == (tmp_path / out / "model.rlk").read_bytes()
    capsys.readouterr()
    assert main(["train", "--config", "r/config.yaml", "seed=3", "--cfg"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["out"] == "runs/bc_point-noisy_s3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 0\nagent.betta: 2\n", "bad.yaml, line 2: unknown key 'agent.betta'"),
        ("agent:\n  batch_siz: 2\n", "bad.yaml, line 2: unknown key 'agent.batch_siz'; did you mean"),
        ("a: 1\nb:\n  c: 2\n", "bad.yaml, line "),
        ("seed: 0\n\nlog_every: never\n", "bad.yaml, line 3: log_every: "),
        ("seed: -1\n", "bad.yaml, line 1: seed=-1 is out of range"),
        ("seed: 0\nseed: 1\n", "bad.yaml, line 2: seed is given twice"),
        ("seed: !!python/object/apply:os.system ['true']\n", "bad.yaml, line 1: seed has the tag"),
        ("out: !x y\n", "bad.yaml, line 1: out has the tag"),
        ("agent: !x {batch_size: 3}\n", "bad.yaml, line 1: "),
        ("seed: &a 0\nlog_every: *a\n", "bad.yaml: cannot be read as YAML"),
        ("seed: [\n", "bad.yaml, line 2: cannot be read as YAML"),
        ("- seed\n", "bad.yaml holds no settings"),
        ("", "bad.yaml holds no settings"),
        ("out: ${oc.env:HOME}\n", "bad.yaml, line 1: out stands for something else"),
        ("out: [a, b]\n", "bad.yaml, line 1: out is a list"),
        ("seed: []\n", "bad.yaml, line 1: seed has no values"),
        ("seed: {a: 1}\n", "bad.yaml, line 1: unknown key 'seed.a'"),
        ("seed: [[0]]\n", "bad.yaml, line 1: seed holds a list"),
        ("3: 4\n", "bad.yaml, line 1: "),
        ("? [a]\n: 4\n", "bad.yaml, line 1: "),
        ("#" * 70_000, "more than 65536 bytes"),
        ("\x00", "bad.yaml"),
        ("".join(f"k{i}: 0\n" for i in range(1001)), "more than 1000 settings"),
        ("[" * 2000, "bad.yaml"),
        ("agent: prcd\n", "bad.yaml, line 1: unknown agent 'prcd'"),
    ],
)
def test_bad_files_of_settings(text: str, said: str, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    own = [] if text.startswith("agent: prcd") else ["agent=bc"]
    assert main(["train", "--config", "bad.yaml", *own, "env=point-noisy", "--cfg"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("rlkit: "), error
    assert not (tmp_path / "runs").exists()


def test_files_of_settings_that_cannot_be_read(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("out: é\n".encode("latin-1"))
    for name in ("none.yaml", ".", "latin.yaml"):
        assert main(["train", "--config", name]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["train", "--config"]) == 2
    assert "--config" in capsys.readouterr().err


# ---- completion ---------------------------------------------------------------------------------------------------


def completed(line: str) -> list[str]:
    """What the shell is given for ``line``, as its script asks."""
    source = (
        "import sys; from rlkit.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules, 'torch is loaded'"
    )
    environment = {**os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_TYPE": "9"}
    environment |= {"COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": "completed.txt"}
    environment |= {"_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True)
    assert "AssertionError" not in done.stderr, done.stderr
    return Path("completed.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("rlkit tr", ["train"], ["tune"]),
        ("rlkit ", ["train", "data", "completion"], []),
        ("rlkit train agent=pr", ["agent=prdc"], ["agent=bc"]),
        ("rlkit train agent=prdc env=hopper-m", ["env=hopper-medium"], ["env=hopper"]),
        ("rlkit train agent=beer env=hop", ["env=hopper"], ["env=hopper-medium"]),
        ("rlkit train agent=prdc agent.be", ["agent.beta="], ["agent.alpha="]),
        ("rlkit train agent=prdc agent.normalise_observations=", ["agent.normalise_observations=true"], []),
        ("rlkit train agent=prdc total", ["total_timesteps="], ["seed="]),
        ("rlkit tune agent=td3bc agent.al", ["agent.alpha="], []),
        ("rlkit list ", ["agents", "envs"], []),
        ("rlkit data in", ["info"], ["make"]),
        ("rlkit completion ", ["bash", "zsh", "fish"], []),
        ("rlkit plot --o", ["--out"], []),
    ],
)
def test_completion(line: str, some: list[str], none: list[str]) -> None:
    found = [word.strip() for word in completed(line)]
    assert set(some) <= set(found) and not set(none) & set(found), found


def test_bash_completes(tmp_path: Path) -> None:
    """The script in a real shell, whose own words end at an equals sign."""
    program = tmp_path / "bin" / "rlkit"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom rlkit.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = """eval "$(rlkit completion bash)"
complete -p rlkit
COMP_LINE='rlkit train agent=prd'; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
COMP_WORDS=(rlkit train agent = prd); COMP_CWORD=4
_python_argcomplete rlkit prd =
printf '%s\\n' "${COMPREPLY[@]}"
"""
    path = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rlkit" in done.stdout.splitlines()[0] and done.stdout.split()[-1] == "prdc"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(shell: str, capsys: Any) -> None:
    assert main(["completion", shell]) == 0
    assert "rlkit" in capsys.readouterr().out
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
