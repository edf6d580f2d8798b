"""Make docs/speed.md from the JSON files that ``rlkit bench --out`` wrote, and from nothing else.

rlkit bench td3bc-d3rlpy td3bc-plain overhead sampling stepping help --out docs/assets/bench/systems.json
rlkit bench ddpg-sb3 sac-sb3 model-fitting --out docs/assets/bench/online.json
rlkit bench contextual-stepping glucose-stepping dual-linprog --out docs/assets/bench/worlds.json
rlkit bench adam-silent --out docs/assets/bench/optimiser.json
rlkit bench td3bc-jax optimiser --out docs/assets/bench/jax-and-optimiser-steps.json
rlkit bench compiled --out docs/assets/bench/compiled.json
rlkit bench stepping-envpool --out docs/assets/bench/envpool.json
rlkit bench gpu-graph gpu-peers gpu-stacked gpu-prdc --out docs/assets/bench/gpu.json
rlkit bench prdc-hopper prdc-halfcheetah prdc-d3rlpy-hopper --rows 1000000 --out docs/assets/bench/search.json
python scripts/make_speed.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER, OUT = Path("docs/assets/bench"), Path("docs/speed.md")


WHICH = """\
## Which way of running updates

| where | what | by |
|---|---|---|
| a processor, a short run | as written | the default |
| a processor, more updates than pay for compiling | one compiled program an update | `agent.compile=true` |
| a GPU, one run | CUDA graphs | the default there |
| several runs of one shape | one program for all of them | `engine=stacked` |

`agent.compile=true` records an update (losses, gradients, Adam, targets, metrics), writes it as C++ and has the
machine's compiler (`CXX`, else c++, g++ or clang++; `CXXFLAGS` is heeded) make a program of it for exactly this
processor. One line on stdout says how long that took, what an update takes with and without, and after how many
updates it has paid; it is done again whenever a run begins or goes on, takes seconds and keeps nothing on disk. Where
there is no compiler, or an update is no program (it reads a value back, or is another one a period later), the line
names the reason and the line of code, and updates run as written.

State stays in the same tensors and draws come from the same generators: a checkpoint of one way goes on in the other,
and a run that is always compiled resumes to the bit on the same kind of processor with the same compiler. What an
update computes differs by rounding in float32 alone, about 10⁻⁷ of a value an update, which is not the same run after
some thousand updates. A program uses one core: use the others for other runs. What gains is what surrounds matrix
products, and products themselves where a processor has AVX-512; neighbour searches are called as they are, so PRDC
gains less, and A2PR, whose auto-encoder is nearly all products, least.

What was measured where: "Compiled" and "Jax and optimiser steps" are of one core of an AVX-512 machine that others
worked on too, hence times that vary more than ratios do. On a machine with AVX2 alone this comparison with JAX has not
been made.
"""


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def cells(line: dict[str, Any]) -> list[str]:
    what = line["what"] + (f" ({line['note']})" if line.get("note") else "")
    if line["skipped"]:
        return [what, "", "", f"not run: {line['skipped']}", "", ""]
    low, high = line["spread"]
    share = line["kind"] == "share"
    form = ".0%" if share else ".2f"
    ratio = f"{line['ratio']:{form}} [{low:{form}}, {high:{form}}]"
    goal = "" if line["goal"] is None else f"{'≥' if line['kind'] == 'speed-up' else '≤'} {line['goal']:g}"
    met = {True: "yes", False: "**no**", None: ""}[line["met"]]
    seconds = [duration(line[side]["median_seconds"]) for side in ("ours", "peer")]
    return [what, *seconds, ratio, goal, met]


def main() -> None:
    lines = [
        "# Speed",
        "",
        "Made by `scripts/make_speed.py` from what `rlkit bench` wrote; no figure is typed in. Both sides of a row "
        "take turns in one process; a time is a median over blocks, the ratio is the median of the per-round ratios, "
        "with its quartiles in brackets.",
        "",
    ]
    for path in sorted(FOLDER.glob("*.json")):
        found = json.loads(path.read_text())
        machine, settings = found["machine"], found["settings"]
        versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v)
        lines += [
            f"## {path.stem.replace('-', ' ').capitalize()}",
            "",
            f"{machine['processor']}, {machine['cores']} cores, {settings['threads']} thread for updates, "
            f"{settings['rows']:,} rows, batch {settings['batch_size']}, {settings['rounds']} rounds. {versions}.",
            "",
            "| work | ours | peer | ratio [quartiles] | goal | met |",
            "|---|---|---|---|---|---|",
            *("| " + " | ".join(cells(line)) + " |" for line in found["lines"]),
            "",
        ]
    lines += [
        *WHICH.splitlines(),
        "",
        "## Notes",
        "",
        "“Same matmul kernels” repeats a row with the same float32 kernels on both sides: on this processor PyTorch's "
        "default ones reach half of what it can do, and rlkit selects the faster where they round as float32 should "
        "(`rlkit.algorithms.floats.fast_float32`). Stepping is bound by MuJoCo itself: two threads halve the physics, "
        "and what Gymnasium spends outside it is all that is left to gain beyond that. At the published width a fit of "
        "seven networks at once is hardly faster than one after another. A step of one tour and of 64 cost the same, "
        "about fifteen microseconds of calls: the goal against rl4co is met from 100 nodes on, in large batches.",
        "",
    ]
    OUT.write_text("\n".join(lines))
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
