"""Make docs/claims.md, and the last column of the README's table of agents, from the claims and the result files.

    python scripts/make_claims.py            # after runs were added: python scripts/evidence.py pack FOLDER FAMILY

What a claim is tested by is in ``claims.yaml``, how figures become a verdict in ``verdicts.py``; none is typed.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from typing import Any

import verdicts
import yaml
from verdicts import ROOT, SEEDS, WORDS, Found, Ruling

from rlkit.run.reading import Curve, band

HERE = Path(__file__).resolve().parent
CLAIMS = yaml.safe_load((HERE / "claims.yaml").read_text()) | yaml.safe_load((HERE / "errata.yaml").read_text())
EVERY = {50_000: 2_500}  # updates between evaluations of shorter runs: the last ten are half a run, not all of it
RULED: dict[int, Ruling] = {}  # by the claim's id: CLAIMS stays as it is
ROW = re.compile(
    r"^\| `([a-z0-9-]+)` \| (.+?) \| ([^|]+?) \|(?: (\[[^|]*\]\(docs/claims\.md#[^|]*\)) \|)?$", re.MULTILINE
)
HEADER = re.compile(r"^\| agent \| method \| learns from \|(?: verdict \|)?\n\|(?:---\|){3,4}$", re.MULTILINE)
SHORT = {"holds": "holds", "holds in part": "in part", "does not hold": "does not hold", "undecided": "undecided"}
MARK = {True: "holds", False: "does not hold"}


def prose(text: str, indent: str = "") -> list[str]:
    """A paragraph, wrapped, and an empty line."""
    return [*textwrap.wrap(text, 119, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False), ""]


def ruled(claim: dict[str, Any]) -> Ruling:
    """The verdict on a claim of CLAIMS, come to once."""
    if id(claim) not in RULED:
        RULED[id(claim)] = verdicts.ruling(claim)
    return RULED[id(claim)]


def line_of(test: Found) -> str:
    """A test's figures and what they come to."""
    said = f"open ({test.reason})" if test.outcome is None else MARK[test.outcome]
    return f"{test.what}: {test.text}: **{said}**"


def here(ruling: Ruling) -> str:
    lines, group = [], ""
    for test in ruling.tests:
        if test.text:
            lines += [f"*{test.group}*"] if test.group != group else []
            lines.append(line_of(test))
            group = test.group
    missing = [test.what for test in ruling.tests if not test.text]
    if lines and missing:
        lines.append("not run: " + ", ".join(missing))
    return "<br>".join(lines) or "-"


def verdict(ruling: Ruling) -> str:
    if ruling.word != "undecided":
        return ruling.word
    if not ruling.run:
        return "undecided: not run"
    tests = [test for test in ruling.tests if not test.pooled]
    return f"undecided ({sum(test.outcome is None for test in tests)} of {len(tests)} open)"


def links(claim: dict[str, Any]) -> str:
    found = [f"[runs]({claim['runs']})"] if "runs" in claim else []
    if "figure" in claim:
        found.append(f"[figure](assets/{claim['figure']})")
    return ", ".join(found) or "-"


Missing = dict[tuple[str, int, str], dict[str, int]]  # (family, steps, label) -> set -> runs


def open_runs(claims: list[dict[str, Any]]) -> Missing:
    """What is missing to three seeds a side, for every set of a claim that has an open test."""
    wanted: Missing = {}
    for claim in claims:
        if all(test.outcome is not None for test in ruled(claim).tests):
            continue
        for test in claim["tests"]:
            family, steps = test.get("family", "offline"), int(test.get("steps", claim.get("steps", 200_000)))
            sides = [test.get(side) for side in ("left", "right")] if "sets" in test else []
            for label in (side for side in sides if side in CLAIMS["labels"]):
                for env in verdicts.sets_of(test):
                    runs = verdicts.groups(family).get((env, label), [])
                    missing = SEEDS - sum(verdicts.progress(run) >= test.get("least", 0) for run in runs)
                    if missing > 0:
                        wanted.setdefault((family, steps, label), {})[env] = missing
    return wanted


def cost(wanted: Missing) -> str:
    count = sum(sum(sets.values()) for sets in wanted.values())
    seconds = sum(
        sum(sets.values()) * steps / 1000 * CLAIMS["labels"][label]["seconds"]
        for (_, steps, label), sets in wanted.items()
    )
    return f"{count} run{'s' if count > 1 else ''}, {seconds / 3600:.1f} core-hours"


def takes(claims: list[dict[str, Any]]) -> list[str]:
    """What would decide what is open: commands and core-hours."""
    lines, wanted, found = [], open_runs(claims), []
    for (family, steps, label), sets in sorted(wanted.items()):
        agent = CLAIMS["labels"][label]["agent"]
        name = label if label == agent else f"{label}={agent}"
        script = "run_offline_table.py" + (f" eval_every={EVERY[steps]}" if steps in EVERY else "")
        lines.append(f"python scripts/{script} --folder runs/{family} --steps {steps} --agents {name} \\")
        lines.append(f"    --envs {' '.join(sets)}")
    if lines:
        found += [*prose(f"What is open takes {cost(wanted)}:"), "```bash", *lines, "```", ""]
    for claim in claims:
        if "takes" in claim and ruled(claim).word in ("undecided", "holds in part"):
            said = claim["claimed"].partition(":")[0].partition(" (")[0]
            found += prose(f"“{said}” takes {claim['takes']}.")
    return found


def table(claims: list[dict[str, Any]]) -> list[str]:
    lines = ["| claimed | here | verdict | why | |", "|---|---|---|---|---|"]
    for claim in claims:
        ruling = ruled(claim)
        said = f"*{claim['form'].capitalize()}.* {claim['claimed']} ({claim['source']})"
        lines.append(f"| {said} | {here(ruling)} | **{verdict(ruling)}** | {claim['why']} | {links(claim)} |")
    return [*lines, ""]


def words() -> dict[str, str]:
    """``agent -> verdict`` on the agent as a whole."""
    return {
        name: verdicts.overall([ruled(claim).word for claim in method["claims"]])
        for name, method in CLAIMS["methods"].items()
    }


def curves_of(env: str) -> dict[str, list[Curve]]:
    """The curves of one data set: label to a curve a seed."""
    held = verdicts.groups("offline")
    return {
        label: [([e["step"] for e in run["evaluations"]], [e["score"] for e in run["evaluations"]]) for run in runs]
        for label in CLAIMS["curves"]
        if (runs := held.get((env, label)))
    }


def draw(out: Path) -> None:
    """Score against updates over the nine data sets, with bands over seeds; a line of one seed has none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 3, figsize=(12, 9), layout="constrained", sharex=True, sharey=True)
    colours = {label: f"C{i}" for i, label in enumerate(CLAIMS["curves"])}
    for panel, env in zip(axes.T.flat, sorted(verdicts.NINE), strict=True):
        for label, runs in curves_of(env).items():
            found = band(runs)
            panel.plot(found.steps, found.means, color=colours[label], linewidth=1.2 if len(runs) > 1 else 0.7)
            if found.intervals:
                low, high = zip(*found.intervals, strict=True)
                panel.fill_between(found.steps, low, high, color=colours[label], alpha=0.2, linewidth=0)
        seeds = ", ".join(f"{label} {len(runs)}" for label, runs in curves_of(env).items())
        panel.set_title(f"{env}\n({seeds or 'not run'})", fontsize=7)
        panel.grid(alpha=0.3)
    figure.supxlabel("updates")
    figure.supylabel("normalised score")
    lines = [plt.Line2D([], [], color=colour) for colour in colours.values()]
    figure.legend(lines, list(colours), ncol=len(colours), loc="outside upper center", fontsize=8)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def rows(readme: str) -> list[re.Match[str]]:
    return list(ROW.finditer(readme))


def with_verdicts(readme: str) -> str:
    """The README with a last column of verdicts in its table of agents."""
    found = words()
    readme = HEADER.sub("| agent | method | learns from | verdict |\n|---|---|---|---|", readme)
    return ROW.sub(
        lambda row: f"| `{row[1]}` | {row[2]} | {row[3]} | [{SHORT[found[row[1]]]}](docs/claims.md#{row[1]}) |", readme
    )


def page(readme: str) -> str:
    found = words()
    count = {word: list(found.values()).count(word) for word in WORDS}
    lines = ["# What is claimed, and what was found", ""]
    lines += prose(
        "Made by `scripts/make_claims.py` from result files: what is claimed, from where, and why are written by hand, "
        f"every figure of this library and every verdict is computed. Verdicts of {len(found)} methods: "
        + ", ".join(f"{word} {count[word]}" for word in verdicts.WORDS)
        + "."
    )
    lines += prose(
        "**Data is generated** by behaviour policies that ship with rlkit, so what can hold or fail here is an order, "
        "not a published figure. *As published*: each side with the settings of its own paper. *Equal settings*: what "
        "is not the method is the same on both sides."
    )
    lines += ["## How a verdict comes about", ""]
    lines += prose(
        "A test holds where the whole 95 % interval of the difference lies beyond what is asked, fails where none of "
        "it does, and is undecided otherwise. Intervals of runs are percentile bootstraps over seeds, each side and "
        "each set resampled by itself; of other figures Student's t of their standard errors. A set is decided with "
        f"{SEEDS} seeds a side or more: of two against two, one side is above the other by chance one time in three. "
        "A score is the mean of a run's last ten evaluations unless a claim says otherwise; after 200,000 updates, "
        "where papers have 10⁶."
    )
    lines += prose(
        "A claim of several tests is undecided while more of them are open than decided; else it holds if all decided "
        "ones do, and none is open, does not hold if all of them fail, and holds in part otherwise. Over several data "
        "sets the mean difference over those that both sides have with two seeds or more goes first, once they are "
        "half or more. A method's verdict is made from its claims' in the same way. Routes, hulls and tours are judged "
        "over instances, for the weights that ship: their intervals say nothing of other trainings."
    )
    lines += prose(
        "“IQM” is the interquartile mean of runs, sets as strata. Raw runs, with every curve: "
        "`python scripts/evidence.py unpack FOLDER` writes them, each checked against its SHA-256; `python "
        "scripts/evidence.py again offline RUN FOLDER` trains one again with its own settings and says whether every "
        "return is the same, to the digit, as it is on the machine and with the versions that it was made with."
    )
    every = [claim for method in CLAIMS["methods"].values() for claim in method["claims"]] + CLAIMS["errata"]
    lines += prose(
        f"To decide all that is open, with {SEEDS} seeds a side, takes {cost(open_runs(every))}, by the seconds an "
        "update in `scripts/claims.yaml`, and what is named beside single claims. The commands have seeds 0 to 2; "
        "`python scripts/evidence.py unpack runs` puts the runs there are where they are left alone, and `python "
        "scripts/evidence.py pack runs/offline offline`, likewise `online`, with this page's script makes verdicts."
    )
    seeds = [len(runs) for env in verdicts.NINE for runs in curves_of(env).values()]
    lines += ["![score against updates over nine data sets](assets/claims_curves.png)", ""]
    lines += prose(
        f"Evaluations of ten episodes, mean over seeds with a 95 % bootstrap interval as a band. {seeds.count(1)} of "
        f"{len(seeds)} lines are of one seed and have none; the titles say how many seeds a line has."
    )
    lines += ["![percent behind the best against seconds, for each problem and method](assets/solve_seconds.png)", ""]
    lines += prose(
        "Routes: methods of `rlkit solve` by processor seconds, `bq` with the weights that ship, solvers of others "
        "dashed; `scripts/solve_table.py` draws it, and [its table](solve.md#seconds-against-gaps) has the figures."
    )
    described = {row[1]: row[2] for row in rows(readme)}
    for name, method in CLAIMS["methods"].items():
        lines += [f"## {name}", ""]
        lines += prose(f"{described[name]}. [Its page]({method['page']}). **Verdict: {found[name]}.**")
        lines += [*table(method["claims"]), *takes(method["claims"])]
    lines += ["## Errata", ""]
    lines += prose("What papers, or their code, have otherwise than they say, each with our experiment beside it.")
    for item in CLAIMS["errata"]:
        more = f"[More]({item['runs']})"
        ruling = ruled(item)
        lines += [f"### {item['title']}", ""]
        lines += prose(f"{item['paper']} {item['why']} {more}.")
        lines += prose(f"*{item['claimed']}*: **{verdict(ruling) if item['tests'] else 'kept by tests'}**.")
        for test in ruling.tests:
            if test.text:
                said = f"- {test.group}, {line_of(test)}" if test.group else f"- {line_of(test)}"
                lines += prose(said, "  ")[:-1]
        lines += [""] if any(test.text for test in ruling.tests) else []
        lines += takes([item])
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="where README.md and docs/ are written")
    root = parser.parse_args().root
    readme = (ROOT / "README.md").read_text()
    (root / "docs").mkdir(exist_ok=True)
    (root / "docs" / "claims.md").write_text(page(readme))
    (root / "docs" / "assets").mkdir(exist_ok=True)
    draw(root / "docs" / "assets" / "claims_curves.png")
    (root / "README.md").write_text(with_verdicts(readme))
    print(f"wrote {root / 'docs' / 'claims.md'} and the verdicts of {root / 'README.md'}")


if __name__ == "__main__":
    main()
