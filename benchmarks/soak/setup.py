"""The soaked project: a route over two targets, an app, a provider that fails, and a key for each kind of client."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAINSTAY = Path(sys.executable).parent / "mainstay"

PROJECT = """\
project: soak
settings:
  plain_policy: policy.yaml
providers:
  mock: {{kind: openai, base_url: "{upstream}/v1", api_key_env: MOCK_KEY, price: {{input: 0.10, output: 0.40}}}}
  bad: {{kind: openai, base_url: "{upstream}/v1", api_key_env: MOCK_KEY, price: {{input: 0.10, output: 0.40}}}}
models:
  mock-a: {{provider: mock, model: mock-model}}
  mock-b: {{provider: mock, model: mock-model}}
  failing: {{provider: bad, model: bad-model}}
routes:
  steady: {{policy: weighted, targets: [{{model: mock-a, weight: {weight}}}, mock-b]}}
  cached: {{policy: ordered, targets: [mock-a, mock-b], cache_ttl_s: 30}}
prompts:
  answer: answer.md
policies:
  rules: policy.yaml
apps:
  bot: {{prompt: answer, model: mock-a, policy: rules, generation: {{max_tokens: 64}}}}
"""
POLICY = """\
input: {pii: mask, secrets: mask}
output: {pii: flag, secrets: mask}
"""
PROMPT = """\
---
description: Edition {edition}.
variables:
  question: string
---
# system
You answer in one sentence. Edition {edition}.

# user
{{{{ question }}}}
"""

BUDGET = ["--budget", "1000/total"]
KEYS = {
    "steady": BUDGET,
    "rough": BUDGET,
    "limited": [*BUDGET, "--rpm", "30"],
    "narrow": [*BUDGET, "--concurrent", "1"],
    "poor": ["--budget", "0.0005/total"],
}
"""Clients of `steady` read every answer to its end; `rough` ones hang up, and their upstream fails."""


@dataclass(frozen=True, slots=True)
class Soaked:
    """The prepared folder. `keys` maps a client's kind to its key's id and token."""

    folder: Path
    upstream: str
    keys: dict[str, tuple[str, str]]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MAINSTAY_")}
        return {**kept, "MOCK_KEY": "sk-upstream", "MAINSTAY_DATA_DIR": str(self.folder / "data")}

    def write_project(self, weight: int) -> None:
        """The route with another weight: a running gateway follows the file."""
        beside = self.folder / "mainstay.new"
        beside.write_text(PROJECT.format(upstream=self.upstream, weight=weight))
        beside.replace(self.folder / "mainstay.yaml")

    def write_prompt(self, edition: int) -> None:
        (self.folder / "answer.md").write_text(PROMPT.format(edition=edition))

    async def mainstay(self, *words: str) -> str:
        """Run a command on the folder. Raises RuntimeError with what it said."""
        process = await asyncio.create_subprocess_exec(
            str(MAINSTAY),
            *words,
            "--json",
            cwd=self.folder,
            env=self.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"mainstay {' '.join(words)}: {error.decode()[-500:]}")
        return out.decode()

    async def create_key(self, name: str, options: Sequence[str]) -> tuple[str, str]:
        made = json.loads(await self.mainstay("key", "create", name, *options))
        return made["id"], made["token"]


async def prepare(folder: Path, upstream: str) -> Soaked:
    soaked = Soaked(folder, upstream, {})
    (folder / "policy.yaml").write_text(POLICY)
    soaked.write_project(weight=2)
    soaked.write_prompt(edition=1)
    await soaked.mainstay("team", "create", "crew")
    await soaked.mainstay("limits", "set", "team", "crew", "--budget", "5000/total")
    for kind, options in KEYS.items():
        soaked.keys[kind] = await soaked.create_key(kind, [*options, "--team", "crew"])
    await soaked.mainstay("apply", "--promote")
    return soaked
