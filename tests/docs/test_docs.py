"""What the documentation says is true: links lead somewhere, examples load, commands and names exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from mainstay.cli.main import app
from mainstay.core.content import BlobStore
from mainstay.core.database import Database
from mainstay.delivery import load_project, load_prompt, project_schema
from mainstay.evaluate import load_dataset
from mainstay.evaluate.scorers import DEFAULT_METRICS
from mainstay.govern import local_identity
from mainstay.guard import Guard, default_policy, load_policy
from mainstay.guard.checks.pii import KINDS as PII_KINDS
from mainstay.guard.checks.secrets import KINDS as SECRET_KINDS
from mainstay.guard.registry import checks
from mainstay.knowledge import ChunkSettings, FolderSource, Library
from mainstay.models.vendors import VENDORS
from mainstay.observe import Attr

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

PROMPT = "---\nvariables:\n  question: string\n{more}---\n# user\n{use}{{{{ question }}}}\n"
CASE = '{"id": "q1", "question": "Why?", "kind": "unanswerable"}\n'


@dataclass(frozen=True)
class Block:
    """A fenced block: `info` is what stands behind the opening fence."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    info, start, body = None, 0, []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("```"):
            body.append(line)
        elif info is None:
            info, start, body = line[3:].strip(), number, []
        else:
            yield Block(page, start, info, "\n".join(body) + "\n")
            info = None


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def marked(info: str) -> Any:
    """Parametrizes a test over the blocks with this mark."""
    found = [b for b in BLOCKS if b.info == info]
    assert found, f"no block is marked {info}"
    return pytest.mark.parametrize("block", found, ids=lambda b: b.place)


# --- links -------------------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors_of(linked), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if not re.match(r"[a-z]+:", target):
                waiting.append((page.parent / target).resolve())
    assert set((ROOT / "docs").rglob("*.md")) <= seen


# --- generated pages ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_reference", ROOT / "scripts" / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_fresh(writer: ModuleType) -> None:
    assert [p.name for p in writer.stale()] == [], "run: .venv/bin/python scripts/write_reference.py"


def test_every_error_and_route_says_what_it_is(writer: ModuleType) -> None:
    pages = {path.name: text for path, text in writer.pages().items()}
    for name in ("errors.md", "routes.md", "settings.md"):
        assert [line for line in pages[name].splitlines() if line.endswith("|  |")] == []


# --- examples ----------------------------------------------------------------------------------------------


def make_files(project: Mapping[str, Any], folder: Path) -> None:
    """Make what a project file names, as small as it may be."""
    for corpus in project.get("knowledge", {}).values():
        for path in corpus["paths"]:
            (folder / path).mkdir(parents=True, exist_ok=True)
    files = dict.fromkeys(project.get("datasets", {}).values(), CASE)
    files |= dict.fromkeys(project.get("policies", {}).values(), "input: {}\n")
    for spec in project.get("apps", {}).values():
        prompt = project.get("prompts", {}).get(spec["prompt"], spec["prompt"])
        has_corpus = "corpus" in spec
        files[prompt] = PROMPT.format(
            more="  passages: passages\n" if has_corpus else "", use="{{ passages }}" if has_corpus else ""
        )
        if "/" in spec.get("policy", ""):
            files[spec["policy"]] = "input: {}\n"
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@marked("yaml mainstay.yaml")
def test_every_project_file_shown_loads(block: Block, tmp_path: Path) -> None:
    make_files(yaml.safe_load(block.text), tmp_path)
    (tmp_path / "mainstay.yaml").write_text(block.text)

    project = load_project(tmp_path / "mainstay.yaml")

    assert project.apps


@marked("yaml policy")
def test_every_policy_shown_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(block.text)
    assert load_policy(path, "shown").rails


@marked("md prompt")
def test_every_prompt_shown_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "prompt.md"
    path.write_text(block.text)
    assert load_prompt(path, "shown").messages


@marked("json dataset")
def test_every_dataset_shown_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(block.text)
    assert load_dataset(path)


def test_the_tutorials_dataset_loads(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorial" / "first-app.md").read_text("utf-8")
    found = re.search(r"questions\.jsonl <<'END'\n(.*?)END\n", text, re.DOTALL)
    assert found is not None
    path = tmp_path / "questions.jsonl"
    path.write_text(found[1])
    assert len(load_dataset(path)) == 5


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.info == "python"], ids=lambda b: b.place)
def test_every_python_example_is_python(block: Block) -> None:
    compile(block.text, block.place, "exec")


# --- commands ----------------------------------------------------------------------------------------------


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each `mainstay` command of a shell block; here documents are skipped."""
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        plain = line.split(" #", 1)[0].split("   #", 1)[0]
        for found in re.finditer(r"(?:^|[\s(|;&])(?:[^\s=(]*/)?mainstay (?=[a-z-])", plain):
            words = shlex.shlex(plain[found.end() :], posix=True, punctuation_chars="|&;<>()")
            words.whitespace_split = True
            command = []
            for word in words:
                if set(word) <= set("|&;<>()"):
                    break
                command.append(word)
            yield command


COMMANDS = [
    (block.place, words) for block in BLOCKS if block.info == "sh" for words in commands_in(block.text)
]


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[f"{p} {' '.join(w)}" for p, w in COMMANDS])
def test_every_command_shown_exists_with_its_options(place: str, words: list[str]) -> None:
    command, path, rest = typer.main.get_command(app), "mainstay", list(words)
    while hasattr(command, "commands"):
        assert rest, f"{place}: {path} needs a command"
        name = rest.pop(0)
        assert name in command.commands, f"{place}: there is no `{path} {name}`"
        command, path = command.commands[name], f"{path} {name}"
    with command.make_context(path, rest):  # parses: unknown options and wrong values raise
        pass


def test_commands_are_found_in_shell_blocks() -> None:
    shown = "X=a/mainstay mainstay up --port 0   # start\nid=$(mainstay eval run a --dataset d --json | jq .)\n./mainstay.yaml"
    assert list(commands_in(shown)) == [
        ["up", "--port", "0"],
        ["eval", "run", "a", "--dataset", "d", "--json"],
    ]


# --- nothing is left out -----------------------------------------------------------------------------------


def read(*parts: str) -> str:
    return ROOT.joinpath("docs", *parts).read_text("utf-8")


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=lambda v: v.name)
def test_every_vendor_is_listed_with_its_key(vendor: Any) -> None:
    row = f"| `{vendor.name}` | `{vendor.key_env}` | {vendor.base_url} |"
    lacks = ", ".join(f"`{name}`" for name in sorted(vendor.lacks)) or "–"
    assert any(
        line.startswith(row) and f"| {lacks} |" in line
        for line in read("reference", "providers.md").splitlines()
    ), "run through docs/reference/providers.md: the table of vendors has changed"


@pytest.mark.parametrize("metric", DEFAULT_METRICS)
def test_every_metric_is_explained(metric: str) -> None:
    assert f"| `{metric}` |" in read("how-to", "evaluate-an-app.md")


def test_every_check_with_its_options_and_kinds_is_explained() -> None:
    page = read("reference", "what-is-checked.md")
    for name in checks:
        assert f"## `{name}`" in page
        for option in checks.get(name).options:
            assert f"`{option}`" in page or f"`{option}:" in page, (name, option)
    for kind in (*PII_KINDS, *SECRET_KINDS):
        assert f"`{kind}`" in page, kind


def test_every_span_attribute_is_explained() -> None:
    page = read("reference", "traces.md")
    names = [value for key, value in vars(Attr).items() if not key.startswith("_")]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_key_of_the_project_file_is_explained() -> None:
    schema, page = project_schema(), read("reference", "project-file.md")
    keys = {*schema["properties"]}
    for section in schema["$defs"].values():
        keys |= {*section["properties"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


# --- the example app ingests these pages -------------------------------------------------------------------


def test_no_passage_of_the_documentation_is_taken_for_an_attack(
    sqlite_database: Database, tmp_path: Path
) -> None:
    library = Library(sqlite_database, BlobStore(tmp_path / "blobs"))
    report = library.sync(
        local_identity(), "docs", FolderSource([ROOT / "docs"]), ChunkSettings(target_chars=800)
    )
    guard, policy = Guard.load(), default_policy()

    passages = [chunk.text for chunk in library.chunks(report.snapshot.id)]

    assert passages
    assert [p for p in passages if guard.check(p, "context", policy).action in ("drop", "block")] == []
