"""Settings: one frozen tree, read once, validated whole. One order: flag > environment > file > default.

The file is the `settings:` section of `mainstay.yaml`; the environment variable of a setting is its name in
capitals after `MAINSTAY_`. `Settings.origin(key)` says where a value came from (`mainstay config explain`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mainstay.core.errors import ConfigError, did_you_mean
from mainstay.core.secret import Secret
from mainstay.core.yamlfile import YamlFile, load_yaml

PROJECT_FILE = "mainstay.yaml"


@dataclass(frozen=True, slots=True)
class SettingSpec:
    """What a setting is: its parser (raises ValueError), default, and one line for people."""

    parse: Callable[[str], Any]
    default: Any
    help: str


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return parse


def _flag(text: str) -> bool:
    known = {
        "true": True,
        "yes": True,
        "1": True,
        "on": True,
        "false": False,
        "no": False,
        "0": False,
        "off": False,
    }
    if text.lower() not in known:
        raise ValueError("must be true or false")
    return known[text.lower()]


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return text.rstrip("/")


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return text.lower()


def default_models_dir() -> Path:
    """Models are shared by all projects of a user, as they are large."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "mainstay" / "models"


def _half_of_memory_mb() -> int:
    """Of the machine, or of the control group (a container's limit) where that is less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # no such limit: the file is absent, or says "max"
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(256, min(found) // 2 >> 20)


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


SPECS: Mapping[str, SettingSpec] = {
    "data_dir": SettingSpec(
        lambda t: Path(t).expanduser(), Path(".mainstay"), "Folder of everything Mainstay stores."
    ),
    "database_url": SettingSpec(
        Secret, None, "Control database; default SQLite in data_dir, or postgresql://…"
    ),
    "redis_url": SettingSpec(
        Secret, None, "Redis that holds limits and budgets, redis://…; needed by several gateway processes."
    ),
    "plain_policy": SettingSpec(
        lambda t: Path(t).expanduser(),
        None,
        "Policy file that guards models asked by their own name; default: the built-in one.",
    ),
    "drain_s": SettingSpec(
        _whole(0, 3600), 30, "How long requests may still run when the server is told to end."
    ),
    "models_dir": SettingSpec(lambda t: Path(t).expanduser(), None, "Folder of downloaded local models."),
    "host": SettingSpec(str, "127.0.0.1", "Address to listen on."),
    "port": SettingSpec(_whole(0, 65535), 8321, "Port to listen on; 0 takes a free one."),
    "public_url": SettingSpec(_url, None, "The address people use, for links; default http://host:port."),
    "log_level": SettingSpec(_level, "info", "debug, info, warning or error."),
    "trace_retention_days": SettingSpec(_whole(1, 3650), 30, "Traces older than this are deleted."),
    "capture_content": SettingSpec(_flag, True, "Store prompts and answers in traces."),
    "otlp_export_url": SettingSpec(_url, None, "OTLP/HTTP base URL that gets a copy of every trace."),
    "session_hours": SettingSpec(_whole(1, 720), 12, "How long a sign-in lasts."),
    "cache_mb": SettingSpec(_whole(0, 65536), 32, "Memory for cached answers, MiB, in each process."),
    "body_limit_mb": SettingSpec(_whole(1, 1024), 20, "Largest request body, MiB."),
    "engine_threads": SettingSpec(
        _whole(1, 256), max(1, min(4, os.cpu_count() or 1)), "CPU threads of the local engine."
    ),
    "engine_slots": SettingSpec(_whole(1, 64), 2, "Requests the local engine answers at once."),
    "engine_context": SettingSpec(_whole(512, 131072), 2048, "Context tokens per slot of the local engine."),
    "engine_memory_mb": SettingSpec(
        _whole(256, 1 << 24),
        _half_of_memory_mb(),
        "Memory that all loaded local models together may hold, MiB.",
    ),
    "engine_idle_unload_s": SettingSpec(
        _whole(0, 1 << 31),
        900,
        "A local model that nobody asked for this many seconds gives its memory back; 0 keeps it.",
    ),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, validated. `origins` maps each name to where its value came from."""

    data_dir: Path
    database_url: Secret
    redis_url: Secret | None
    plain_policy: Path | None
    drain_s: int
    models_dir: Path
    host: str
    port: int
    public_url: str | None
    log_level: str
    trace_retention_days: int
    capture_content: bool
    otlp_export_url: str | None
    session_hours: int
    cache_mb: int
    body_limit_mb: int
    engine_threads: int
    engine_slots: int
    engine_context: int
    engine_memory_mb: int
    engine_idle_unload_s: int
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """`flag`, `environment MAINSTAY_PORT`, `file mainstay.yaml, line 3` or `default`."""
        if key not in SPECS:
            raise ConfigError(f"No setting is called {key!r}.", fix=did_you_mean(key, SPECS))
        return self.origins[key]


def load_settings(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    project_dir: Path | None = None,
) -> Settings:
    """Read every source once. `flags` with value None count as not given. Raises ConfigError naming the source."""
    environment = os.environ if environment is None else environment
    given_flags = {k: v for k, v in (flags or {}).items() if v is not None}
    file, section = _file_section((project_dir or Path.cwd()) / PROJECT_FILE)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, spec in SPECS.items():
        variable = f"MAINSTAY_{name.upper()}"
        if name in given_flags:
            raw, origin = given_flags[name], "flag"
        elif variable in environment:
            raw, origin = environment[variable], f"environment {variable}"
        elif file is not None and name in section:
            raw, origin = section[name], f"file {file.path.name}, line {file.line(('settings', name))}"
        else:
            values[name], origins[name] = spec.default, "default"
            continue
        values[name], origins[name] = _parse(name, spec, raw, origin), origin
    return _with_derived_defaults(values, origins)


def _file_section(path: Path) -> tuple[YamlFile | None, Mapping[str, Any]]:
    if not path.exists():
        return None, {}
    file = load_yaml(path)
    section = file.data.get("settings") or {} if isinstance(file.data, dict) else {}
    if not isinstance(section, dict):
        raise file.error(("settings",), "must be a mapping of setting to value.")
    for name in section:
        if name not in SPECS:
            raise file.error(("settings", name), "no such setting.", fix=did_you_mean(str(name), SPECS))
    return file, section


def _parse(name: str, spec: SettingSpec, raw: object, origin: str) -> Any:
    text = str(raw).lower() if isinstance(raw, bool) else str(raw)
    try:
        return spec.parse(text)
    except ValueError as error:
        shown = "***" if spec.parse is Secret else repr(text)
        raise ConfigError(f"Setting {name} ({origin}) is {shown}: {error}.", fix=spec.help) from error


def _with_derived_defaults(values: dict[str, Any], origins: dict[str, str]) -> Settings:
    values["data_dir"] = values["data_dir"].absolute()
    if values["database_url"] is None:
        values["database_url"] = Secret(sqlite_url(values["data_dir"] / "mainstay.db"))
    if values["models_dir"] is None:
        values["models_dir"] = default_models_dir()
    assert set(values) == {f.name for f in fields(Settings)} - {"origins"}
    return Settings(**values, origins=origins)
