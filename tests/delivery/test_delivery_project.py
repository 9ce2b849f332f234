from __future__ import annotations

import json
from pathlib import Path

import pytest

from mainstay.core.errors import ConfigError
from mainstay.core.yamlfile import load_yaml
from mainstay.delivery import ProjectError, load_project, project_schema
from mainstay.models import read_models_config


def mistakes(folder) -> list[str]:  # type: ignore[no-untyped-def]
    """Each mistake without the path of the folder."""
    with pytest.raises(ProjectError) as refused:
        load_project(folder.root)
    return [str(mistake).replace(f"{folder.root}/", "") for mistake in refused.value.mistakes]


def test_a_project_reads_with_its_files(folder) -> None:  # type: ignore[no-untyped-def]
    project = load_project(folder.root)
    app = project.apps["bot"]
    assert (app.prompt, app.model, app.corpus, app.policy) == (
        "answer",
        "local/smollm2",
        "handbook",
        "careful",
    )
    assert (app.retrieval.top_k, app.generation.max_tokens, app.generation.temperature) == (3, 120, 0.0)
    assert project.knowledge["handbook"].paths == (folder.root / "knowledge",)
    assert project.policies["careful"].grounding.unsupported == "remove"
    assert project.root == folder.root


def test_the_smallest_project_reads(folder) -> None:  # type: ignore[no-untyped-def]
    folder.write("mainstay.yaml", "project: small\nknowledge:\napps:\n")
    assert load_project(folder.root / "mainstay.yaml").apps == {}


def test_files_may_be_named_by_path_in_the_app(folder) -> None:  # type: ignore[no-untyped-def]
    folder.replace("mainstay.yaml", "prompt: answer\n", "prompt: prompts/answer.md\n")
    folder.replace("mainstay.yaml", "policy: careful\n", "policy: policies/other.yaml\n")
    folder.write("policies/other.yaml", "output:\n  secrets: mask\n")
    project = load_project(folder.root)
    assert (project.apps["bot"].prompt, project.apps["bot"].policy) == ("answer", "other")
    assert set(project.policies) == {"careful", "other"}


def test_a_route_is_followed_to_its_model(folder) -> None:  # type: ignore[no-untyped-def]
    folder.replace("mainstay.yaml", "model: local/smollm2", "model: fast")
    folder.replace("mainstay.yaml", "apps:", "models:\n  fast: {provider: openai, model: gpt-4o-mini}\napps:")
    assert load_project(folder.root).apps["bot"].model == "openai/gpt-4o-mini"


def test_all_mistakes_are_told_at_once_with_line_and_remedy(folder) -> None:  # type: ignore[no-untyped-def]
    folder.replace("mainstay.yaml", "prompt: answer\n", "prompt: anser\n")
    folder.replace("mainstay.yaml", "corpus: handbook\n", "corpus: handbok\n")
    folder.replace("mainstay.yaml", "policies/careful.yaml", "policies/carful.yaml")
    folder.replace("mainstay.yaml", "[knowledge/]", "[knowledge/, documents/]")
    folder.replace(
        "mainstay.yaml", "project: handbook\n", "project: handbook\nsettings: {prot: 1, host: x, port: no}\n"
    )
    found = mistakes(folder)
    assert found[0] == "mainstay.yaml, line 2: settings.prot: no such setting. Did you mean 'port'?"
    assert found[1].startswith("mainstay.yaml, line 2: settings.port: ")
    assert found[2:] == [
        "mainstay.yaml, line 5: knowledge.handbook.paths.1: there is no file or folder documents/. "
        "Make it, or take it out of the list.",
        "mainstay.yaml, line 9: policies.careful: there is no file policies/carful.yaml. "
        "Did you mean 'policies/careful.yaml'?",
        "mainstay.yaml, line 12: apps.bot.prompt: no prompt is called 'anser'. Did you mean 'answer'?",
        "mainstay.yaml, line 14: apps.bot.corpus: no corpus is called 'handbok' under knowledge. "
        "Did you mean 'handbook'?",
    ]


def test_misspelt_keys_and_wrong_types_are_told_at_once(folder) -> None:  # type: ignore[no-untyped-def]
    folder.write(
        "mainstay.yaml",
        """project: handbook
promts: {}
apps:
  Bot:
    prompt: answer
    modle: local/smollm2
    retrieval: {mode: hybrd, top_k: three, topk: 3}
    generation: {max_tokens: true, temperature: 9}
  bot: answer
""",
    )
    found = mistakes(folder)
    assert any(line.startswith("mainstay.yaml, line 2: promts: ") and "'prompts'" in line for line in found)
    assert any(line.startswith("mainstay.yaml, line 4: ") and "small letters" in line for line in found)
    assert any("line 4: apps.Bot.model: is missing." in line for line in found)
    assert any("line 6: apps.Bot.modle: " in line and "'model'" in line for line in found)
    assert any("line 7: apps.Bot.retrieval.mode: 'hybrd'" in line and "'hybrid'" in line for line in found)
    assert any("line 7: apps.Bot.retrieval.top_k: " in line and "'three'" in line for line in found)
    assert any("line 7: apps.Bot.retrieval.topk: " in line and "'top_k'" in line for line in found)
    assert any("line 8: apps.Bot.generation.max_tokens: " in line and "True" in line for line in found)
    assert any("line 8: apps.Bot.generation.temperature: " in line for line in found)
    assert any("line 9: apps.bot: must be a mapping" in line for line in found)


def test_mistakes_of_prompts_and_policies_are_told_with_their_own_lines(folder) -> None:  # type: ignore[no-untyped-def]
    folder.replace("prompts/answer.md", "{{ question }}", "{{ qestion }}")
    folder.replace("policies/careful.yaml", "secrets: mask", "secrts: mask")
    found = mistakes(folder)
    assert len(found) == 2
    assert any(line.startswith("prompts/answer.md, line 12: variable 'qestion'") for line in found)
    assert any("careful.yaml, line 2" in line for line in found)


def test_a_prompt_that_no_request_can_fill_is_told(folder) -> None:  # type: ignore[no-untyped-def]
    folder.replace("prompts/answer.md", "  question: string\n", "  question: string\n  tone: string\n")
    (found,) = mistakes(folder)
    assert found.startswith("mainstay.yaml, line 11: apps.bot.prompt: prompt answer needs a variable 'tone'")


def test_a_corpus_that_the_prompt_does_not_use_is_told(folder) -> None:  # type: ignore[no-untyped-def]
    folder.write("prompts/answer.md", "---\nvariables:\n  question: string\n---\n{{ question }}")
    (found,) = mistakes(folder)
    assert "does not use passages" in found


def test_passages_without_a_corpus_are_told(folder) -> None:  # type: ignore[no-untyped-def]
    folder.replace("mainstay.yaml", "    corpus: handbook\n", "")
    (found,) = mistakes(folder)
    assert "the app has no corpus" in found


def test_a_missing_project_says_what_to_do(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="mainstay init"):
        load_project(tmp_path)


def test_a_file_that_is_no_mapping_is_told(folder) -> None:  # type: ignore[no-untyped-def]
    for text in ("- a\n", "just text\n", ""):
        folder.write("mainstay.yaml", text)
        assert "must be a mapping" in mistakes(folder)[0]


def test_the_schema_for_editors_knows_every_section_and_setting() -> None:
    schema = project_schema()
    assert {"project", "knowledge", "prompts", "policies", "datasets", "apps"} <= set(schema["properties"])
    assert "port" in schema["properties"]["settings"]["properties"]
    assert json.loads(json.dumps(schema)) == schema


def test_prices_of_ones_own_endpoint_stand_in_the_project_file(tmp_path: Path) -> None:
    file = tmp_path / "mainstay.yaml"
    file.write_text(
        "project: p\n"
        "providers:\n"
        "  gpu:\n"
        "    base_url: http://127.0.0.1:8000/v1\n"
        "    models: [qwen]\n"
        "    price: {input: 0.1, output: 0.4}\n"
        "    idle_timeout_s: 60\n"
        "models:\n"
        "  fast: {provider: gpu, model: qwen, price: {input: 0.2, output: 0.5}, context_tokens: 8192}\n"
    )
    assert load_project(file).models["fast"].model == "qwen"
    models = read_models_config(load_yaml(file)).models
    assert models["fast"].price is not None
    assert models["fast"].price.output_nusd == 500
