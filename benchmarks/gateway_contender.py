"""Mainstay as a contender of the gateway bench: a fresh data folder with every feature on, then the server.

    python benchmarks/gateway_contender.py prepare FOLDER UPSTREAM HEADERS_FILE
    python benchmarks/gateway_contender.py serve FOLDER PORT [gateway|up] [--workers N]

`prepare` writes the project and its policy, makes a team, a project, a user and a key with limits on each, and
leaves `authorization: Bearer …` in HEADERS_FILE. `serve` becomes the server. What is on: see docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MAINSTAY = Path(sys.executable).parent / "mainstay"
UPSTREAM_KEY = "sk-upstream"

PROJECT = """\
project: bench
settings:
  plain_policy: policy.yaml
providers:
  mock: {{kind: openai, base_url: "{upstream}/v1", api_key_env: MOCK_KEY, price: {{input: 0.10, output: 0.40}}}}
models:
  mock-a: {{provider: mock, model: mock-model}}
  mock-b: {{provider: mock, model: mock-model}}
routes:
  mock-model:
    policy: weighted
    targets: [{{model: mock-a, weight: 2}}, {{model: mock-b, weight: 1}}]
    cache_ttl_s: 600
"""

POLICY = """\
input:
  pii:
    - {action: mask, kinds: [email, credit_card, iban, us_ssn, ip_address, national_id]}
    - {action: flag, kinds: [phone]}
  secrets: mask
output: {pii: flag, secrets: mask}
"""
"""Phone numbers are looked for and not masked: a counter in the driver's requests could be taken for one, and
requests that are the same once masked would be answered from the cache."""

RATES = ["--rpm", "10000000", "--tpm", "1000000000000", "--concurrent", "100000"]
"""Never reached, and counted for each request all the same."""


def environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's own settings reaches the contender, but for Redis (`--workers` needs it)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MAINSTAY_") or k == "MAINSTAY_REDIS_URL"}
    return {**kept, "MOCK_KEY": UPSTREAM_KEY, "MAINSTAY_DATA_DIR": str(folder / "data")}


def prepare(folder: Path, upstream: str, headers_file: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "mainstay.yaml").write_text(PROJECT.format(upstream=upstream))
    (folder / "policy.yaml").write_text(POLICY)

    def mainstay(*words: str) -> str:
        command = [str(MAINSTAY), *words, "--json"]
        done = subprocess.run(
            command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    mainstay("team", "create", "shop")
    mainstay("project", "create", "support", "--team", "shop")
    mainstay("user", "create", "bench@example.org")
    limited = {"team": "shop", "project": "support", "user": "bench@example.org"}
    for kind, name in limited.items():
        mainstay("limits", "set", kind, name, "--budget", "1000000/month", *RATES)
    owners = ["--team", "shop", "--project", "support", "--user", "bench@example.org"]
    budgets = ["--budget", "1000000/day", "--budget", "1000000/month"]
    token = json.loads(mainstay("key", "create", "bench", *owners, *budgets, *RATES))["token"]
    headers_file.write_text(f"authorization: Bearer {token}\n")


def serve(folder: Path, port: str, role: str, more: list[str]) -> None:
    command = [str(MAINSTAY), role, "--port", port, *(["--no-apply"] if role == "up" else []), *more]
    os.chdir(folder)
    os.execve(command[0], command, environment(folder))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["prepare", folder, upstream, headers_file]:
            prepare(Path(folder), upstream, Path(headers_file))
        case ["serve", folder, port, ("gateway" | "up") as role, *more]:
            serve(Path(folder), port, role, more)
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
