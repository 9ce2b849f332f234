"""`make bench-gateway`: Mainstay beside its peers, every feature on; a table and `results.json`.

The driver (load generator, mock upstream, scenarios, peers' configurations) is found through
MAINSTAY_BENCH_GATEWAY, default `../shared/bench/gateway` beside the repository. Peers that are not installed
are left out and said so. What is measured and how: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import gateway_workers, large_prompts
from benchmarks.gateway_figures import OURS, WITH_DRAIN, Results, failures, figures
from benchmarks.gateway_process import CONTENDER, Tools
from benchmarks.measure import Figure, load_average, show, verdict, write

ROOT = Path(__file__).parent.parent
SCENARIOS = "max,rate200,rate1000,sse_paced,sse_max,sse_burst"

OUR_CONTENDERS = """\
[gateway.{name}]
port = {port}
setup = ["{python} {contender} prepare {{work}}/{name} {{upstream}} {{work}}/{name}.headers"]
cmd = "{python} {contender} serve {{work}}/{name} {{port}} {role}"
headers_file = "{{work}}/{name}.headers"
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A contender of the driver's own list. `key` is what its configuration calls the installed place."""

    name: str
    key: str | None
    variable: str
    """The environment variable that says where it is installed."""


PEERS = (
    Peer("tensorzero", "tensorzero", "MAINSTAY_BENCH_TENSORZERO"),
    Peer("litellm_features", "litellm2", "MAINSTAY_BENCH_LITELLM"),
    Peer("portkey", "npm", "MAINSTAY_BENCH_NPM"),
)


def driver_folder() -> Path | None:
    """Where the shared driver lies; None when it is not there."""
    given = os.environ.get("MAINSTAY_BENCH_GATEWAY")
    folder = Path(given) if given else ROOT.parent / "shared" / "bench" / "gateway"
    return folder.resolve() if (folder / "run.py").is_file() else None


def peers_here(environment: Mapping[str, str]) -> tuple[list[str], list[str], list[str]]:
    """Contenders' names, `--set` arguments, and a line for each peer that is left out."""
    names, settings, left_out = [], [], []
    if shutil.which("nginx"):
        names.append("nginx")
    else:
        left_out.append("nginx is left out: it is not installed")
    for peer in PEERS:
        place = environment.get(peer.variable)
        if place and Path(place).is_dir():
            names.append(peer.name)
            settings += ["--set", f"{peer.key}={place}"]
        else:
            why = f"{place} is no folder" if place else f"{peer.variable} names no place"
            left_out.append(f"{peer.name} is left out: {why}")
    return names, settings, left_out


def run_driver(
    driver: Path, work: Path, names: list[str], settings: list[str], a: argparse.Namespace
) -> Path:
    """One go with all contenders; the driver's results file."""
    ours = [(OURS, 9251, "gateway"), (WITH_DRAIN, 9252, "up")]
    made = [
        OUR_CONTENDERS.format(name=n, port=p, role=r, python=sys.executable, contender=CONTENDER)
        for n, p, r in ours
    ]
    (work / "mainstay.toml").write_text("\n".join(made))
    out = work / "driver.json"
    command = [sys.executable, str(driver / "run.py"), "--gateways", str(work / "mainstay.toml")]
    command += ["--gateways", str(driver / "peers.toml"), *settings, "--only", ",".join(names)]
    command += ["--scenarios", a.scenarios, "--runs", str(a.runs), "--seconds", str(a.seconds)]
    command += ["--retries", str(a.retries), "--work", str(work), "--out", str(out), "-v"]
    subprocess.run(command, check=True)
    subprocess.run([sys.executable, str(driver / "report.py"), str(out)], check=False)
    return out


def measure(driver: Path, work: Path, a: argparse.Namespace) -> list[Figure]:
    load = load_average()
    names, settings, left_out = peers_here(os.environ)
    for line in left_out:
        sys.stderr.write(line + "\n")
    wanted = [n for n in (*names, OURS, WITH_DRAIN) if not a.only or n in a.only.split(",")]
    driven = run_driver(driver, work, wanted, settings, a)
    results = Results(json.loads(driven.read_text())["results"])
    for line in failures(results, wanted):
        sys.stderr.write(line + "\n")
    found = figures(results, load)
    tools = Tools(work / "tools")
    found += large_prompts.measure(tools, driver, work, "1", max(5.0, a.seconds), a.runs, load)
    found += gateway_workers.measure(tools, driver, work, a.seconds, a.runs, load)
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-gateway ARGS=", description=__doc__)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each scenario")
    parser.add_argument("--scenarios", default=SCENARIOS)
    parser.add_argument("--only", help="contenders, comma-separated; others are not started")
    parser.add_argument("--retries", type=int, default=3, help="of a try that other programs disturbed")
    parser.add_argument("--work", type=Path, help="keep configurations, logs and the driver's results here")
    parser.add_argument("--dry", action="store_true", help="leave results.json as it is")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    a = parse(arguments)
    driver = driver_folder()
    if driver is None:
        sys.stderr.write(
            "The gateway bench needs its driver, and it is not here: name its folder (the one with run.py) in "
            "MAINSTAY_BENCH_GATEWAY, or put it in ../shared/bench/gateway beside the repository.\n"
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="mainstay-bench-") as temporary:
        work = (a.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        try:
            found = measure(driver, work, a)
        except subprocess.CalledProcessError as error:  # the driver has said why
            sys.stderr.write(f"the driver ended with status {error.returncode}\n")
            return 2
    show(found)
    if not a.dry:
        write(found, Path(__file__).parent / "results.json")
    return verdict(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
