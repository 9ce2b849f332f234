"""`mainstay demo`: the main job, from documents to a grounded, cited, traced, versioned answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import Progress, TaskID

from mainstay.cli.ask import render_extension
from mainstay.cli.context import actor
from mainstay.cli.demo_state import DemoRun, DemoState
from mainstay.cli.evaluations import render_comparison, render_runs
from mainstay.cli.output import JsonFlag, emit, err, out, progress_bar, say, stdout_for_data_only
from mainstay.cli.project import Bar, render_changes, render_published
from mainstay.cli.server import RunningServer, addresses, require_models, show_addresses
from mainstay.core.config import PROJECT_FILE, load_settings
from mainstay.core.errors import ConfigError, Conflict, MissingExtra, NotFound
from mainstay.delivery import Project, Release, load_project, load_prompt
from mainstay.evaluate import Case, compare
from mainstay.models import ollama_models
from mainstay.observe import Attr, Span
from mainstay.services import evaluate_app, publish, wait_for_trace

APP, PLAIN_APP, DATASET = "handbook-bot", "handbook-extractive", "questions"
STAGES = 6
SHOWN_METRICS = (
    "recall_at_k",
    "grounded",
    "right_answer",
    "right_refusal",
    "wrong_refusal",
    "cited",
    "latency_ms",
    "cost_usd",
)
ABOUT_THE_SMALL_MODEL = (
    "This model has 135 million parameters and is often wrong: what people read is what its sources support, and "
    "local/extractive shows what plain selection of sentences reaches."
)
BEFORE, AFTER = "after promotion", "after rollback"


def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit when done instead of staying up.")] = False,
    model: Annotated[
        str,
        typer.Option(help="Model of the example app, e.g. openai/gpt-4o-mini; `auto` takes one you have."),
    ] = "local/smollm2",
    cases: Annotated[int | None, typer.Option(min=2, help="Evaluate only N of the questions.")] = None,
    example: Annotated[Path | None, typer.Option(help="Folder of the example project.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the demo stores everything.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    json: JsonFlag = False,
) -> None:
    """Ingest a handbook, ask, evaluate, change the prompt, promote and roll back. Killed? Run it again."""
    folder = (example or find_example()).absolute()
    where = (data_dir or Path.cwd() / ".mainstay" / "demo").absolute()
    with chdir(folder):
        settings = load_settings({"data_dir": where, "port": port})
        project = with_model(load_project(folder / PROJECT_FILE), chosen_model(model))
        require_models(settings, project)
        with RunningServer(settings, project) as server:
            with stdout_for_data_only(json):
                result = Demo(server, project, folder, cases).run()
            if not once:
                emit(result, json, lambda: show_addresses(addresses(server), list(project.apps)))
                server.wait()
    if once:
        emit(result, json, lambda: say(shown(result, where)))


def shown(result: Mapping[str, Any], where: Path) -> str:
    """What a run that does not stay up leaves behind, and how to see it again."""
    before, after = result["releases"]
    return (
        f"Shown: {len(result['answers'])} cited answers, {len(result['runs'])} evaluations, "
        f"production moved from r{before} to r{after} and back.\n"
        f"All of it, traces too, is kept in {where}. To look at it in the web UI: make demo"
    )


def find_example() -> Path:
    """`examples/handbook` of this folder, else of the checkout this program runs from."""
    for base in (Path.cwd(), Path(__file__).parents[3]):
        if (base / "examples" / "handbook" / PROJECT_FILE).exists():
            return base / "examples" / "handbook"
    raise ConfigError(
        "The example project is not here.", fix="Run the demo in a clone of Mainstay, or name --example."
    )


def chosen_model(name: str) -> str:
    """`auto`: a hosted model whose key is set, else one of a running Ollama, else the local one."""
    if name != "auto":
        return name
    if os.environ.get("OPENAI_API_KEY"):
        return "openai/gpt-4o-mini"
    served = asyncio.run(ollama_models(os.environ))
    return f"ollama/{served[0]}" if served else "local/smollm2"


def with_model(project: Project, model: str) -> Project:
    """The project with the example app on another model."""
    app = replace(project.apps[APP], model=model)
    return replace(project, apps={**project.apps, APP: app})


def with_prompt(project: Project, name: str, path: Path) -> Project:
    """The project as if its prompt's file had been edited."""
    return replace(project, prompts={**project.prompts, name: load_prompt(path, name)})


class Demo:
    """The stages in order. Each is safe to repeat: it finds what an earlier run has done and goes on."""

    def __init__(self, server: RunningServer, project: Project, folder: Path, cases: int | None) -> None:
        self.server, self.services, self.project, self.folder = server, server.services, project, folder
        self.cases = spread(project.datasets[DATASET].cases, cases)
        self.questions = orjson.loads((folder / "demo_questions.json").read_bytes())
        self.state = DemoState(server.settings.data_dir / "demo.json")
        self.model = project.apps[APP].model
        self.stage = 0

    def run(self) -> dict[str, Any]:
        steps = [*(q["question"] for q in self.questions), BEFORE, AFTER]
        run, resumed = self.state.resume_or_begin(self.model, steps)
        if resumed:
            say("The last run was cut off; going on where it stopped.")
        first = self.ingest()
        answers = [self.ask(run, q["question"], q["shows"]) for q in self._questions()]
        runs = self.evaluate(run)
        second = self.change_prompt()
        moved = self.promote_and_roll_back(run, first, second)
        self.state.finish(run)
        self.head("Done")
        return {"answers": answers, "runs": runs, "releases": [first.number, second.number], **moved}

    def head(self, title: str) -> None:
        self.stage += 1
        err.print(f"\n[{self.stage}/{STAGES}] {title}", style="bold cyan", markup=False)

    def ingest(self) -> Release:
        """Sync the documents, build the index, make a release and put it into production."""
        self.head("Ingest the handbook and Mainstay's own documentation; make a release")
        with progress_bar("ingest") as bar:
            published = publish(
                self.services,
                actor(),
                self.project,
                note="the example as shipped",
                promote=True,
                progress=Bar(bar),
            )
        render_published(published)
        return self.current()

    def current(self, environment: str = "production") -> Release:
        pointers = {e.name: e.release for e in self.services.delivery.environments(APP)}
        return self.services.delivery.release(APP, pointers[environment])

    def _questions(self) -> list[dict[str, str]]:
        self.head(f"Ask five questions with the OpenAI SDK, model={APP!r}, answered by {self.model}")
        return list(self.questions)

    def ask(self, run: DemoRun, question: str, shows: str) -> dict[str, Any]:
        """Ask one question, streaming; or show its answer again when a run that was cut off has it."""
        out.print(f"\nQ: {question}", style="bold", markup=False)
        if shows:
            say(f"   {shows}")
        return self._asked_before(run.traces[question]) or self._ask_now(run.traces[question], question)

    def _asked_before(self, trace_id: str) -> dict[str, Any] | None:
        for span in self._spans(trace_id):
            said = span.attributes.get(Attr.OUTPUT_MESSAGES)
            if span.attributes.get(Attr.OPERATION) == "invoke_agent":
                out.print(f"A: {last_text(said)}   (answered before the interruption)", markup=False)
                out.print(f"  {self.server.base_url}/traces/{trace_id}", markup=False)
                return {
                    "trace_id": trace_id,
                    "text": last_text(said),
                    "release": span.attributes.get(Attr.RELEASE),
                }
        return None

    def _ask_now(self, trace_id: str, question: str) -> dict[str, Any]:
        client = openai_client(f"{self.server.base_url}/v1", self.server.key)
        stream = client.chat.completions.create(
            model=APP,
            messages=[{"role": "user", "content": question}],
            stream=True,
            extra_headers={"traceparent": f"00-{trace_id}-{os.urandom(8).hex()}-01"},
        )
        text = ""
        extension: dict[str, Any] = {}
        out.print("A: ", end="", markup=False)
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                out.print(choice.delta.content or "", end="", markup=False)
            extension = (chunk.model_extra or {}).get("mainstay") or extension
        out.print()
        render_extension(extension, self.server.base_url)
        return {"trace_id": trace_id, "text": text, **extension}

    def evaluate(self, run: DemoRun) -> list[Any]:
        """Both apps on the example's questions, side by side, with 95 % intervals."""
        self.head(f"Evaluate {len(self.cases)} questions: {self.model} beside local/extractive")
        runs = []
        for target in (APP, PLAIN_APP):
            with progress_bar(f"eval {target}") as bar:
                task = bar.add_task("", total=len(self.cases))
                finished = self.server.run(
                    evaluate_app(
                        self.services,
                        actor(),
                        DATASET,
                        self.cases,
                        target,
                        partial(_show_done, bar, task),
                        nonce=run.run_id,
                    )
                )
            runs.append(finished)
        render_runs(runs, SHOWN_METRICS)
        out.print(f"\n{PLAIN_APP} minus {APP}, case by case:", markup=False)
        render_comparison(compare(*runs), SHOWN_METRICS)
        if self.model == "local/smollm2":
            say(ABOUT_THE_SMALL_MODEL)
        return [r.id for r in runs]

    def change_prompt(self) -> Release:
        """Apply the project with its second prompt: a new release in `dev`, production untouched."""
        self.head("Change the prompt: a new release, and what differs")
        changed = with_prompt(self.project, "answer", self.folder / "prompts" / "answer-v2.md")
        with progress_bar("apply") as bar:
            publish(self.services, actor(), changed, note="a clearer prompt", progress=Bar(bar))
        second = self.current("dev")
        shown = self.services.delivery.diff(APP, self.current().number, second.number)
        render_changes(shown.changes)
        return second

    def promote_and_roll_back(self, run: DemoRun, first: Release, second: Release) -> dict[str, Any]:
        """Production → the new release, one answer, back again, one answer: from the first release."""
        question = self.questions[0]["question"]
        self.head(f"Promote r{second.number}, ask, roll back, ask again")
        delivery = self.services.delivery
        if self.current().number != second.number and not self._spans(run.traces[BEFORE]):
            delivery.promote(actor(), APP, "production", second.number, "demo")
        out.print(f"\nproduction → r{second.number}", markup=False)
        promoted = self.ask_release(run, BEFORE, question)
        if self.current().number == second.number:
            delivery.rollback(actor(), APP, "production", "demo")
        out.print(f"\nproduction → r{self.current().number} (rolled back)", markup=False)
        rolled_back = self.ask_release(run, AFTER, question)
        say(f"   The answer came from r{rolled_back}; before the rollback from r{promoted}.")
        if rolled_back != first.number:
            raise Conflict(f"After the rollback r{rolled_back} answered, not r{first.number}.")
        return {"promoted_answer_from": promoted, "rolled_back_answer_from": rolled_back}

    def _spans(self, trace_id: str) -> Sequence[Span]:
        """The spans of a trace; none while it is not stored."""
        try:
            return self.services.traces.get(trace_id)
        except NotFound:
            return ()

    def ask_release(self, run: DemoRun, step: str, question: str) -> int:
        """Ask under the step's trace id once the gateway follows; the release that answered."""
        self.services.refresher.refresh()
        trace_id = run.traces[step]
        answer = self._asked_before(trace_id) or self._ask_now(trace_id, question)
        wait_for_trace(self.services, trace_id)
        return int(answer["release"])


def _show_done(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)


def spread(cases: Sequence[Case], count: int | None) -> tuple[Case, ...]:
    """`count` cases from all over the dataset, in its order; all when None or more than there are."""
    total = len(cases)
    if count is None or count >= total:
        return tuple(cases)
    return tuple(cases[index * total // count] for index in range(count))


def openai_client(base_url: str, key: str) -> Any:
    """The official SDK's client; an optional part of the installation."""
    try:
        from openai import OpenAI
    except ImportError as error:
        raise MissingExtra("The demo's client, the official OpenAI SDK,", "demo") from error
    return OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=600)


def last_text(messages: object) -> str:
    """The content of the last of recorded messages; empty when content was not captured."""
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        return str(messages[-1].get("content") or "")
    return ""
