"""Every text of a call under the rules that are for it, so that none goes to a model unread.

- A user's words: the input rail.
- A tool's result: the context rail, as it is untrusted content; the input rail where the policy has no context rail.
- All else that the caller wrote (instructions, earlier answers, calls of tools, names, descriptions of tools,
  schemas, fields that are passed through): the input rail but for its `injection` rules, since instructions belong
  there. An app brings its own instructions, so there earlier answers are under the whole input rail.

Text files and documents given as text are read as the message they are in. Images, sound, PDF and other binary
files are not read, nor are addresses of media, nor hidden reasoning and its signatures, which only their provider
can read.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from mainstay.guard import Guard
from mainstay.guard.types import Finding, Policy, Rail, Verdict
from mainstay.models.types import ChatCall, ChatMessage, MediaPart, Part, TextPart, Thinking, Tool, ToolCall
from mainstay.serving.errors import ContentBlocked
from mainstay.serving.json_text import check_json, strings_of, with_strings
from mainstay.serving.types import finding_body

Writer = Literal["user", "tool", "assistant", "operator"]
_WRITERS: Mapping[str, Writer] = {"user": "user", "tool": "tool", "assistant": "assistant"}
_TEXTUAL = ("application/json", "application/xml", "application/yaml", "application/x-yaml")


class CallGuard:
    """Guards one call. `findings`: of all its texts; `masked`: text → what goes on in its place;
    `blocked`: the verdict that refused it."""

    def __init__(self, guard: Guard, policy: Policy, *, for_app: bool) -> None:
        self._guard = guard
        self._message = policy.blocked_message
        without_injection = guard.cached("operator", "input", policy, _without_injection)
        context: Rail = "context" if policy.rails.get("context") else "input"
        self._rules: Mapping[Writer, tuple[Rail, Policy]] = {
            "user": ("input", policy),
            "tool": (context, policy),
            "assistant": ("input", policy if for_app else without_injection),
            "operator": ("input", without_injection),
        }
        self.findings: list[Finding] = []
        self.masked: dict[str, str] = {}
        self.blocked: Verdict | None = None
        self._read: set[str] = set()
        self._opaque: set[str] = set()

    @classmethod
    def rules_out(cls, call: ChatCall, guard: Guard, policy: Policy) -> bool:
        """Whether no rule of any writer has anything to say of a call of mere text: nearly every one, told by one look.

        False also for what takes a closer look. What users say is under all rules that others are under,
        but for the results of tools.
        """
        if not _is_mere_text(call) or "tool" in [message.role for message in call.messages]:
            return False
        texts = strings_of(call.source)
        texts.update([message.content for message in call.messages])
        return guard.rules_out(texts, "input", policy)

    def call(self, call: ChatCall) -> ChatCall:
        """The call as it may go on; the very same one when nothing was masked. Raises ContentBlocked."""
        if self._is_clean(call):
            return call
        # All tools at once: there are often many, and mostly there is nothing to find.
        self._read_ahead([(tool.name, tool.description, tool.parameters) for tool in call.tools])
        guarded = replace(
            call,
            messages=tuple([self._guarded_message(message) for message in call.messages]),
            tools=tuple([self._tool(tool) for tool in call.tools]),
            response_format=call.response_format
            and replace(
                call.response_format,
                schema=self.json(call.response_format.schema),
                description=self._maybe(call.response_format.description),
            ),
            extra=self.json(call.extra),
            stop=tuple([self.text(stop, "operator") for stop in call.stop]),
            user=self._maybe(call.user),
        )
        if guarded.messages != call.messages or guarded.tools != call.tools:
            # The client's own body says what must not be said: it is rebuilt from what was guarded.
            return replace(guarded, source=None)
        source = self.json(call.source)
        return call if source is call.source and guarded == call else replace(guarded, source=source)

    def _is_clean(self, call: ChatCall) -> bool:
        """Whether nothing at all is to be found in a call of mere text: what users say by its own rules, and the
        rest in one look. False also for a call with more in it, which is read piece by piece."""
        if not _is_mere_text(call):
            return False
        said: set[str] = set()
        for message in call.messages:
            writer = _WRITERS.get(message.role, "operator")
            text = message.content
            if writer != "operator" and text not in said:
                rail, policy = self._rules[writer]
                if text and self._guard.check(text, rail, policy).action != "allow":
                    return False
                said.add(text)
        rail, policy = self._rules["operator"]
        rest = strings_of(call.source) - said
        return self._guard.check("\n".join(sorted(rest)), rail, policy).action == "allow"

    def text(self, text: str, writer: Writer) -> str:
        """The text as it may go on. Raises ContentBlocked."""
        if not text:
            return text
        if writer == "operator" and text in self._read:
            return self.masked.get(text, text)
        rail, policy = self._rules[writer]
        return self._after(text, self._guard.check(text, rail, policy), rail)

    def json(self, value: Any) -> Any:
        """A JSON value with every string in it, that was not read before, as it may go on."""
        if not value or (self._read_ahead(value) and not self.masked):
            return value
        return with_strings(value, self._known_or_read)

    def _read_ahead(self, value: Any) -> bool:
        """One look at all strings of a value together; True when there is nothing to find in them."""
        # Sorted, so that the same value is always judged alike.
        unread = sorted(text for text in strings_of(value) - self._read if not self._knows(text))
        rail, policy = self._rules["operator"]
        clean = not unread or self._guard.check("\n".join(unread), rail, policy).action == "allow"
        if clean:
            self._read.update(unread)
        return clean

    def _after(self, text: str, verdict: Verdict, rail: Rail) -> str:
        self._read.add(text)
        if verdict.action == "allow":
            return text
        self.findings.extend(verdict.findings)
        if verdict.action == "block" or (verdict.action == "drop" and rail == "input"):
            self.blocked = verdict
            raise ContentBlocked(
                self._message,
                fix="Rephrase the message.",
                param="messages",
                guard=[finding_body(f) for f in verdict.findings],
            )
        if verdict.text != text:
            self.masked[text] = verdict.text
        return verdict.text

    def _knows(self, text: str) -> bool:
        if text in self._read or text in self._opaque:
            return True
        # The data of a file inside of its URL.
        return text.startswith("data:") and text[text.find(",", 0, 300) + 1 :] in self._opaque

    def _known_or_read(self, text: str) -> str:
        return self.masked.get(text, text) if self._knows(text) else self.text(text, "operator")

    def _maybe(self, text: str | None) -> str | None:
        return None if text is None else self.text(text, "operator")

    def _guarded_message(self, message: ChatMessage) -> ChatMessage:
        writer = _WRITERS.get(message.role, "operator")
        if message.parts:
            parts = tuple([self._part(part, writer) for part in message.parts])
            content = "".join([part.text for part in parts if isinstance(part, TextPart)])
        else:
            parts, content = (), self.text(message.content, writer)
        if not (message.name or message.tool_calls or message.thinking):
            if content == message.content and parts == message.parts:
                return message
            return replace(message, content=content, parts=parts)
        return replace(
            message,
            content=content,
            parts=parts,
            name=self._maybe(message.name),
            tool_calls=tuple([self._tool_call(call, writer) for call in message.tool_calls]),
            thinking=tuple([t for t in message.thinking if self._may_stay(t, writer)]),
        )

    def _part(self, part: Part, writer: Writer) -> Part:
        if isinstance(part, TextPart):
            text = self.text(part.text, writer)
            return part if text == part.text else replace(part, text=text)
        name = self._maybe(part.name)
        data = part.data
        if data is not None:
            self._opaque.add(data)
            if _is_textual(part):
                data = self._text_file(data, writer)
        if part.url is not None:
            self._opaque.add(part.url)
        return part if (name, data) == (part.name, part.data) else replace(part, name=name, data=data)

    def _text_file(self, data: str, writer: Writer) -> str:
        try:
            text = b64decode(data, validate=True).decode()
        except ValueError:
            return data  # no text after all
        shown = self.text(text, writer)
        return data if shown == text else b64encode(shown.encode()).decode()

    def _tool_call(self, call: ToolCall, writer: Writer) -> ToolCall:
        rail, policy = self._rules[writer]
        verdict = check_json(call.arguments, lambda text: self._guard.check(text, rail, policy))
        arguments = self._after(call.arguments, verdict, rail)
        name = self.text(call.name, "operator")
        return (
            call if (name, arguments) == (call.name, call.arguments) else ToolCall(call.id, name, arguments)
        )

    def _may_stay(self, thinking: Thinking, writer: Writer) -> bool:
        """A signature is of the very words: a block with masked ones would be refused."""
        self._opaque.update(filter(None, (thinking.signature, thinking.encrypted)))
        return self.text(thinking.text, writer) == thinking.text

    def _tool(self, tool: Tool) -> Tool:
        self.text(tool.name, "operator")
        description, parameters = self._maybe(tool.description), self.json(tool.parameters)
        if description == tool.description and parameters is tool.parameters:
            return tool
        return replace(tool, description=description, parameters=parameters)


def _is_mere_text(call: ChatCall) -> bool:
    """Whether all that is said in the call is told by its messages' contents and its source."""
    if call.source is None or call.tools or call.response_format is not None:
        return False
    return not [m for m in call.messages if m.parts or m.tool_calls or m.thinking]


def _without_injection(guard: Guard, policy: Policy, rail: Rail) -> Policy:
    rules = tuple(rule for rule in policy.rails.get(rail, ()) if rule.check != "injection")
    return replace(policy, rails={rail: rules})


def _is_textual(part: MediaPart) -> bool:
    kind = (part.media_type or "").partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind in _TEXTUAL or kind.endswith(("+json", "+xml"))
