"""Prompt files: YAML front matter, then messages under the lines `# system`, `# user`, `# assistant`.

    ---
    description: Answer from the passages.
    variables:
      question: string
      passages: passages
      tone: {type: string, default: plain}
    ---
    # system
    Answer in a {{ tone }} tone.
    # user
    {% for p in passages %}[{{ p.number }}] {{ p.text }}
    {% endfor %}
    Question: {{ question }}

The text is Jinja, sandboxed, with its standard white-space rules; each message is stripped at both ends.

Variables carry untrusted text. It stays data in two ways: messages are split on the template, before anything
is rendered, so that no value can open another role; and what looks like a control token of a chat template
(`<|im_start|>`) is broken apart in what was rendered, so that no tokenizer takes it for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mainstay.core.content import Digest, digest_json
from mainstay.core.errors import ConfigError, InvalidInput, did_you_mean
from mainstay.core.yamlfile import YamlFile, parse_yaml
from mainstay.delivery.mistakes import Mistake, ProjectError, mistakes_of
from mainstay.models.types import ChatMessage

VariableType = Literal["string", "number", "boolean", "list", "passages"]
PromptRole = Literal["system", "user", "assistant"]

REQUEST_VARIABLES: Final = frozenset({"question", "passages", "history"})
"""What a request offers every prompt; a prompt takes those it declares. `history`: a list of {role, content}."""

_ROLE_LINE = re.compile(r"^#[ \t]+(system|user|assistant)[ \t]*$", re.IGNORECASE)
_FRONT_KEYS: Final = ("description", "variables")
_TYPES: Final = get_args(VariableType)

# Tokens with which chat templates mark roles and turns: ChatML, Llama 3 and Phi write <|name|>, DeepSeek the same
# with wide bars, Gemma <start_of_turn>, Llama 2 and Mistral [INST], <<SYS>> and <s>.
_CONTROL_TOKEN = re.compile(
    r"<(?=[|｜][^\s<>]{1,64}[|｜]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|start_of_image|tool_call|tool_response)>)"
    r"|<(?=<?/?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|gMASK)\])"
)


def neutralise(text: str) -> str:
    """Put a space into everything that looks like a chat template's control token: `<|im_end|>` → `< |im_end|>`."""
    return _CONTROL_TOKEN.sub(lambda found: found[0] + " ", text)


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared variable; `default` counts only when not `required`."""

    type: VariableType
    required: bool = True
    default: Any = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file, checked and compiled. `digest` is of `body()`, what its artifact stores."""

    name: str
    digest: Digest
    description: str
    text: str
    variables: Mapping[str, Variable]
    messages: tuple[tuple[PromptRole, Template], ...] = field(repr=False)

    def body(self) -> dict[str, Any]:
        return {"name": self.name, "text": self.text}

    def render(self, variables: Mapping[str, Any]) -> tuple[ChatMessage, ...]:
        """The messages for these values. Raises InvalidInput for missing, unknown or wrongly typed ones."""
        values = self._checked(variables)
        return tuple(ChatMessage(role, self._fill(template, values)) for role, template in self.messages)

    def _checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        for name in given:
            if name not in self.variables and name not in REQUEST_VARIABLES:
                raise InvalidInput(
                    f"Prompt {self.name} has no variable {name!r}.", fix=did_you_mean(name, self.variables)
                )
        values: dict[str, Any] = {}
        for name, variable in self.variables.items():
            if name not in given and variable.required:
                raise InvalidInput(
                    f"Prompt {self.name} needs a value for {name!r} ({variable.type}).",
                    fix="Give one, or give the variable a default in the prompt file.",
                )
            value = _plain(given.get(name, variable.default))
            wrong = _type_fault(value, variable.type)
            if wrong is not None:
                raise InvalidInput(f"Prompt {self.name}: variable {name!r} {wrong}.")
            values[name] = value
        return values

    def _fill(self, template: Template, values: Mapping[str, Any]) -> str:
        try:
            text = template.render(values)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise InvalidInput(f"Prompt {self.name} could not be rendered: {error}.") from error
        return neutralise(text.strip())


def load_prompt(path: Path, name: str) -> Prompt:
    """Read a prompt file. Raises ProjectError with every mistake and its line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError([Mistake(path, None, f"cannot be read: {error}.")]) from error
    return parse_prompt(text, name, path)


def prompt_from_body(body: Mapping[str, Any]) -> Prompt:
    """The prompt that an artifact's body holds."""
    return parse_prompt(body["text"], body["name"], Path(f"{body['name']}.md"))


def parse_prompt(text: str, name: str, path: Path) -> Prompt:
    """As load_prompt, from text; `path` is only named in mistakes."""
    lines = text.replace("\r\n", "\n").split("\n")
    front_end = _front_matter_end(lines, path)
    front = _parse_front("\n".join(["", *lines[1:front_end]]), path)
    description, variables, mistakes = _read_front(front, path)
    parts = _split_roles(lines, front_end + 1, path)
    environment = _environment()
    messages: list[tuple[PromptRole, Template]] = []
    for part in parts:
        mistakes += _body_mistakes(environment, part, variables, path)
        if not mistakes:
            messages.append((part.role, environment.from_string(part.text)))
    if not mistakes:
        mistakes += _trial_mistakes(messages, parts, variables, path)
    if mistakes:
        raise ProjectError(mistakes)
    text = "\n".join(lines)
    digest = digest_json({"name": name, "text": text})
    return Prompt(name, digest, description, text, variables, tuple(messages))


# --- front matter ------------------------------------------------------------------------------------------


def _front_matter_end(lines: Sequence[str], path: Path) -> int:
    """Index of the line that closes the front matter."""
    example = "Begin the file with:\n---\nvariables:\n  question: string\n---"
    if not lines or lines[0].rstrip() != "---":
        raise ProjectError([Mistake(path, 1, "the front matter is missing.", example)])
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip() == "---":
            return index
    raise ProjectError([Mistake(path, 1, "the front matter is not closed.", "End it with a line `---`.")])


def _parse_front(text: str, path: Path) -> YamlFile:
    """`text` starts with an empty line for the opening `---`, so that lines count as in the file."""
    try:
        file = parse_yaml(text, path)
    except ConfigError as error:
        raise ProjectError(mistakes_of(error)) from error
    if file.data is not None and not isinstance(file.data, dict):
        raise ProjectError([Mistake(path, 2, "the front matter must be a mapping.")])
    return file


def _read_front(file: YamlFile, path: Path) -> tuple[str, dict[str, Variable], list[Mistake]]:
    data: Mapping[Any, Any] = file.data or {}
    mistakes = [
        Mistake(path, file.line((key,)), f"{key!r} is not known here.", did_you_mean(str(key), _FRONT_KEYS))
        for key in data
        if key not in _FRONT_KEYS
    ]
    description, declared = data.get("description") or "", data.get("variables") or {}
    if not isinstance(description, str):
        mistakes.append(Mistake(path, file.line(("description",)), "description must be text."))
    if not isinstance(declared, dict):
        wanted = "Write one `name: type` a line."
        mistakes.append(Mistake(path, file.line(("variables",)), "variables must be a mapping.", wanted))
        declared = {}
    variables: dict[str, Variable] = {}
    for name, entry in declared.items():
        variable, problem, fix = _read_variable(name, entry)
        if problem is not None:
            line = file.line(("variables", name))
            mistakes.append(Mistake(path, line, f"variable {name!r} {problem}.", fix))
        # Kept even when wrong, so that its use below is not a second mistake.
        variables[str(name)] = variable
    return str(description), variables, mistakes


def _read_variable(name: object, spec: object) -> tuple[Variable, str | None, str | None]:
    """(the variable, what is wrong with it, what would be right)."""
    unknown = Variable("list", required=False)
    if not isinstance(name, str) or not name.isidentifier():
        return unknown, "is no name", "Use letters, digits and underscores."
    entry = spec if isinstance(spec, dict) else {"type": spec}
    odd = [str(key) for key in entry if key not in ("type", "default")]
    if odd:
        return unknown, f"has an unknown key {odd[0]!r}", did_you_mean(odd[0], ("type", "default"))
    kind: VariableType | None = next((known for known in _TYPES if known == entry.get("type")), None)
    if kind is None:
        given = str(entry.get("type"))
        return unknown, f"has an unknown type {given!r}", did_you_mean(given, _TYPES)
    variable = Variable(kind, "default" not in entry, entry.get("default"))
    wrong = None if variable.required else _type_fault(variable.default, kind)
    return variable, None if wrong is None else f"has a default that {wrong}", None


# --- body --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """The template of one message; its first line is line `start` of the file."""

    role: PromptRole
    start: int
    text: str


def _split_roles(lines: Sequence[str], first: int, path: Path) -> list[_Part]:
    """Messages by role lines; a body without any is one user message. `first` is an index into `lines`."""
    marks = [
        (index, found[1].lower())
        for index, line in enumerate(lines)
        if index >= first and (found := _ROLE_LINE.match(line)) is not None
    ]
    before = lines[first : marks[0][0] if marks else len(lines)]
    stray = next((n for n, line in enumerate(before) if line.strip()), None)
    if not marks:
        if stray is None:
            raise ProjectError([Mistake(path, first + 1, "the prompt is empty.", "Write a `# user` part.")])
        return [_Part("user", first + 1, "\n".join(before))]
    if stray is not None:
        fix = "Put a line `# system` or `# user` above it."
        raise ProjectError([Mistake(path, first + stray + 1, "this text belongs to no message.", fix)])
    ends = [index for index, _ in marks[1:]] + [len(lines)]
    return [
        _Part(_role(role), index + 2, "\n".join(lines[index + 1 : end]))
        for (index, role), end in zip(marks, ends, strict=True)
    ]


def _role(name: str) -> PromptRole:
    assert name in ("system", "user", "assistant")
    return name  # type: ignore[return-value]


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    del environment.globals["lipsum"]
    return environment


def _body_mistakes(
    environment: ImmutableSandboxedEnvironment, part: _Part, variables: Mapping[str, Variable], path: Path
) -> list[Mistake]:
    """Syntax, names that are not declared, and templates in other files."""
    try:
        tree = environment.parse(part.text)
        environment.from_string(part.text)  # unknown filters and tests show only now
    except TemplateSyntaxError as error:
        return [Mistake(path, part.start + error.lineno - 1, f"{error.message or 'bad template syntax'}.")]
    if any(True for _ in meta.find_referenced_templates(tree)):
        return [Mistake(path, part.start, "a prompt cannot include or extend other files.")]
    unknown = meta.find_undeclared_variables(tree) - set(environment.globals) - set(variables)
    return [
        Mistake(
            path,
            part.start + _line_of(tree, name) - 1,
            f"variable {name!r} is used but not declared.",
            f"{did_you_mean(name, variables)} Otherwise declare it under `variables`.",
        )
        for name in sorted(unknown)
    ]


def _line_of(tree: nodes.Template, name: str) -> int:
    return min((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), default=1)


def _trial_mistakes(
    messages: Sequence[tuple[PromptRole, Template]],
    parts: Sequence[_Part],
    variables: Mapping[str, Variable],
    path: Path,
) -> list[Mistake]:
    """Render once with made-up values: a misspelt field of a passage should not wait for the first request."""
    values = {name: _sample(variable) for name, variable in variables.items()}
    mistakes = []
    for (_, template), part in zip(messages, parts, strict=True):
        try:
            template.render(values)
        except UndefinedError as error:
            known = ", ".join(_SAMPLE_PASSAGE)
            fix = f"Fields of a passage: {known}."
            mistakes.append(Mistake(path, part.start + _failed_line(error) - 1, f"{error}.", fix))
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError):
            continue  # made-up values may not suit the template; real ones are checked when given
    return mistakes


def _failed_line(error: BaseException) -> int:
    """The template line on which rendering failed: Jinja puts it in the traceback."""
    trace, line = error.__traceback__, 1
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


# What a request gives for each passage.
_SAMPLE_PASSAGE: Final[Mapping[str, Any]] = {
    "number": 1,
    "text": "Text of the passage.",
    "document": "guides/leave.md",
    "title": "Leave",
    "version": 1,
    "version_id": "sha256:0",
    "page": 1,
    "heading": ["Leave"],
    "start": 0,
    "end": 20,
    "score": 1.0,
}


def _sample(variable: Variable) -> Any:
    if not variable.required:
        return variable.default
    samples: Mapping[VariableType, Any] = {
        "string": "text",
        "number": 1,
        "boolean": True,
        "list": [],
        "passages": [_SAMPLE_PASSAGE],
    }
    return samples[variable.type]


# --- values ------------------------------------------------------------------------------------------------


def _plain(value: object) -> Any:
    """A value as JSON-like data: dataclasses become mappings, so that templates reach fields and nothing else."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    raise InvalidInput(f"A prompt cannot take a value of type {type(value).__name__}.")


def _type_fault(value: object, kind: VariableType) -> str | None:
    """What is wrong with a plain value of a variable of this type, e.g. `must be a number, not text`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "string": isinstance(value, str),
        "number": number,
        "boolean": isinstance(value, bool),
        "list": isinstance(value, list),
        "passages": isinstance(value, list) and all(_is_passage(item) for item in value),
    }
    if fits[kind]:
        return None
    wanted = {"list": "a list", "passages": "a list of passages with number and text"}.get(kind, f"a {kind}")
    return f"must be {wanted}, not {type(value).__name__}"


def _is_passage(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("number"), int) and isinstance(value.get("text"), str)
