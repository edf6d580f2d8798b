"""One SUMO simulation of the merge in a process of its own, for libsumo holds one per process.

A program, run by :mod:`rlkit.envs.hacking.traffic`, that imports nothing of rlkit.  It reads JSON lines, ``{"seed":
3}`` for a new simulation or ``{"act": {"merge.4": -0.5}}`` for a second of it, and answers each with ``speeds``, m/s,
of all vehicles, and ``controlled``: name, speed, gap to the leader or -1, its speed, gap to the follower or -1, its
speed, for each vehicle that can be controlled, in the order in which they entered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

BEFORE, AFTER, RAMP, LANES, LIMIT = 100.0, 75.0, 50.0, 4, 30.0  # m, m, m, highway's lanes, m/s
HIGHWAY_FLOW, RAMP_FLOW, CONTROLLED = 7500, 450, 0.25  # vehicles an hour, share of the ramp's
# The intelligent driver model: acceleration and comfortable braking m/s², headway s, jam gap m, exponent
IDM = 'carFollowModel="IDM" accel="1" decel="1.5" tau="1" minGap="2" delta="4" maxSpeed="30" speedFactor="1"'
SIGHT = 100.0  # m

NODES = f"""<nodes>
  <node id="west" x="{-BEFORE}" y="0"/> <node id="south" x="{-0.8 * RAMP}" y="{-0.6 * RAMP}"/>
  <node id="join" x="0" y="0" type="zipper"/> <node id="east" x="{AFTER}" y="0"/>
</nodes>"""
EDGES = f"""<edges>
  <edge id="before" from="west" to="join" numLanes="{LANES}" speed="{LIMIT}" priority="2"/>
  <edge id="ramp" from="south" to="join" numLanes="1" speed="{LIMIT}" priority="1"/>
  <edge id="after" from="join" to="east" numLanes="{LANES}" speed="{LIMIT}" priority="2"/>
</edges>"""
STRAIGHT = "".join(f'<connection from="before" to="after" fromLane="{k}" toLane="{k}"/>' for k in range(LANES))
CONNECTIONS = f'<connections>{STRAIGHT}<connection from="ramp" to="after" fromLane="0" toLane="0"/></connections>'
TRAFFIC = f"""<routes>
  <vType id="human" {IDM}/>
  <vTypeDistribution id="mixed">
    <vType id="uncontrolled" {IDM} probability="{1 - CONTROLLED}"/>
    <vType id="controlled" {IDM} probability="{CONTROLLED}"/>
  </vTypeDistribution>
  <route id="through" edges="before after"/> <route id="merging" edges="ramp after"/>
  <flow id="main" type="human" route="through" begin="0" end="1e9" period="exp({HIGHWAY_FLOW / 3600})"
        departLane="free" departSpeed="10"/>
  <flow id="merge" type="mixed" route="merging" begin="0" end="1e9" period="exp({RAMP_FLOW / 3600})" departSpeed="5"/>
</routes>"""
OPTIONS = (
    *("--step-length", "1", "--time-to-teleport", "-1", "--collision.action", "warn", "--no-step-log", "--no-warnings"),
    *("--xml-validation", "never", "--xml-validation.net", "never", "--xml-validation.routes", "never"),
)


def build(folder: Path, home: Path) -> list[str]:
    """Write the network and the traffic into ``folder``; SUMO's options for them."""
    texts = {"nod": NODES, "edg": EDGES, "con": CONNECTIONS, "rou": TRAFFIC}
    names = {kind: folder / f"merge.{kind}.xml" for kind in (*texts, "net")}
    for kind, text in texts.items():
        names[kind].write_text(text, encoding="utf-8")
    plain = ["-n", names["nod"], "-e", names["edg"], "-x", names["con"], "-o", names["net"]]
    settings = ["--no-turnarounds", "--junctions.limit-turn-speed", "-1", "--xml-validation", "never"]
    command = [str(home / "bin" / "netconvert"), *map(str, plain), *settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return ["-n", str(names["net"]), "-r", str(names["rou"]), *OPTIONS]


def look(vehicle: Any) -> dict[str, Any]:
    """What there is to say of the simulation as it stands."""
    names = vehicle.getIDList()
    controlled = []
    for name in sorted((n for n in names if vehicle.getTypeID(n) == "controlled"), key=lambda n: int(n.split(".")[1])):
        row: list[Any] = [name, vehicle.getSpeed(name)]
        for other in (vehicle.getLeader(name, SIGHT), vehicle.getFollower(name, SIGHT)):
            if other is None or not other[0]:
                row += [-1.0, 0.0]
            else:  # libsumo's gap leaves the jam gap of the vehicle behind out
                row += [max(other[1] + 2.0, 0.0), vehicle.getSpeed(other[0])]
        controlled.append(row)
    return {"speeds": [vehicle.getSpeed(name) for name in names], "controlled": controlled}


def serve(libsumo: Any, options: list[str], replies: TextIO) -> None:
    running = False
    for line in sys.stdin:
        told = json.loads(line)
        if "seed" in told:
            if running:
                libsumo.close()
            libsumo.start(["sumo", *options, "--seed", str(told["seed"])])
            running = True
        else:
            for name, acceleration in told["act"].items():
                libsumo.vehicle.setAcceleration(name, acceleration, 1.0)
            libsumo.simulationStep()
        replies.write(json.dumps(look(libsumo.vehicle)) + "\n")
        replies.flush()
    if running:
        libsumo.close()


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # SUMO writes where it likes to stdout
    libsumo, sumo = import_module("libsumo"), import_module("sumo")
    os.environ.setdefault("SUMO_HOME", sumo.SUMO_HOME)
    with tempfile.TemporaryDirectory(prefix="rlkit-sumo-") as folder:
        serve(libsumo, build(Path(folder), Path(sumo.SUMO_HOME)), replies)


if __name__ == "__main__":
    main()
