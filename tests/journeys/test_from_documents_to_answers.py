"""The main job on a project of one's own, through the official OpenAI SDK."""

import shutil

import httpx2 as httpx
import pytest
from openai import AuthenticationError, NotFoundError, OpenAI

from mainstay.cli.context import actor
from mainstay.cli.server import RunningServer
from mainstay.delivery import load_project
from mainstay.knowledge import ChunkSettings, FolderSource
from mainstay.services import publish, tend_indexes, wait_for_trace

pytestmark = pytest.mark.model

QUESTION = "How many days of paid annual leave does a full-time employee have?"


def ask(client: OpenAI, question: str, model: str = "bot") -> tuple[str, dict[str, object]]:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    assert answer.model_extra is not None
    return answer.choices[0].message.content or "", answer.model_extra["mainstay"]


def get(server: RunningServer, path: str) -> httpx.Response:
    return httpx.get(server.base_url + path, headers={"Authorization": f"Bearer {server.key}"})


def test_an_answer_cites_the_exact_words_of_the_stored_document(
    server: RunningServer, client: OpenAI
) -> None:
    text, facts = ask(client, QUESTION)
    assert "27 days" in text
    assert "[1]" in text
    (first, *_) = facts["citations"]  # type: ignore[misc]
    document = get(server, f"/api/v1/documents/{first['version_id']}").json()
    assert first["document"] == "leave.md"
    assert document["text"][first["start"] : first["end"]] == first["quote"]


def test_a_streamed_answer_is_the_same_as_a_whole_one(client: OpenAI) -> None:
    whole, _ = ask(client, QUESTION)
    stream = client.chat.completions.create(
        model="bot", messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].model_extra is not None
    assert any((c.model_extra or {}).get("mainstay") for c in chunks)


def test_a_question_without_an_answer_in_the_documents_is_refused(client: OpenAI) -> None:
    text, facts = ask(client, "What is the capital city of Portugal?")
    assert facts["refused"] is True
    assert text == "The sources do not say."


def test_the_trace_of_an_answer_shows_its_steps_and_citations(server: RunningServer, client: OpenAI) -> None:
    _, facts = ask(client, QUESTION)
    trace_id = str(facts["trace_id"])
    wait_for_trace(server.services, trace_id)
    names = [span["name"] for span in get(server, f"/api/v1/traces/{trace_id}").json()["spans"]]
    assert {"guard.input", "retrieve", "render", "ground"} <= set(names)
    cited = get(server, f"/v1/traces/{trace_id}/citations").json()["citations"]
    assert [c["quote"] for c in cited] == [c["quote"] for c in facts["citations"]]  # type: ignore[attr-defined]


def test_a_changed_document_becomes_a_release_that_can_be_promoted_and_rolled_back(
    server: RunningServer, client: OpenAI
) -> None:
    leave = load_project(server.project.root).knowledge["documents"].paths[0] / "leave.md"  # type: ignore[union-attr]
    leave.write_text(leave.read_text().replace("27 days", "30 days"))
    publish(server.services, actor(), load_project(server.project.root))  # type: ignore[union-attr]
    assert "27 days" in ask(client, QUESTION)[0]
    assert "30 days" in ask(client, QUESTION, "bot@dev")[0]
    server.services.delivery.promote(actor(), "bot", "production", 2, "tried it")
    server.services.refresher.refresh()
    text, facts = ask(client, QUESTION)
    assert "30 days" in text
    assert facts["release"] == 2
    server.services.delivery.rollback(actor(), "bot", "production", "second thoughts")
    server.services.refresher.refresh()
    text, facts = ask(client, QUESTION)
    assert "27 days" in text
    assert facts["release"] == 1


def test_publishing_unchanged_input_makes_nothing_new(server: RunningServer) -> None:
    again = publish(server.services, actor(), load_project(server.project.root))  # type: ignore[union-attr]
    assert again.releases == ()
    assert [report.created for report in again.corpora] == [False]
    assert server.services.audit.verify().ok


def test_an_unknown_model_and_an_unknown_key_are_told_in_the_forms_the_sdk_knows(
    server: RunningServer, client: OpenAI
) -> None:
    with pytest.raises(NotFoundError, match="'bot'"):
        ask(client, QUESTION, "bott")
    with pytest.raises(AuthenticationError):
        ask(client.with_options(api_key="ms-wrong"), QUESTION)


def test_embeddings_are_unit_vectors_of_the_embedded_model(client: OpenAI) -> None:
    reply = client.embeddings.create(model="local/minilm", input=["a ferry", "a warehouse"])
    assert [len(row.embedding) for row in reply.data] == [384, 384]
    assert sum(x * x for x in reply.data[0].embedding) == pytest.approx(1, abs=1e-3)


def test_models_lists_apps_beside_models(client: OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"bot", "bot@dev", "bot@production", "bot@r1", "local/extractive", "local/smollm2"} <= names


def test_a_lost_index_is_built_again_from_the_stored_documents(server: RunningServer, client: OpenAI) -> None:
    services = server.services
    services.indexes.close()
    for folder in (services.settings.data_dir / "indexes").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    assert tend_indexes(services) == (1, 0)
    assert tend_indexes(services) == (0, 0)
    assert "27 days" in ask(client, QUESTION)[0]


def test_an_index_that_no_release_needs_is_deleted(server: RunningServer) -> None:
    services, root = server.services, server.project.root  # type: ignore[union-attr]
    extra = root / "knowledge" / "extra.md"
    extra.write_text("# Extra\n\nThis document is gone before it is released.\n")
    source = load_project(root).knowledge["documents"]
    report = services.library.sync(actor(), "documents", FolderSource(source.paths), ChunkSettings())
    services.indexes.build(report.snapshot.id)
    extra.unlink()
    services.library.sync(actor(), "documents", FolderSource(source.paths), ChunkSettings())
    assert tend_indexes(services) == (0, 1)
    assert not services.indexes.ready(report.snapshot.id)
