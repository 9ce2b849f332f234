from pathlib import Path

import pytest

from mainstay.core.config import load_settings
from mainstay.core.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    (folder / "mainstay.yaml").write_text(text)
    return folder


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    project = write(tmp_path, "settings:\n  port: 1\n  host: a\n  log_level: debug\n")
    environment = {"MAINSTAY_PORT": "2", "MAINSTAY_HOST": "b"}
    settings = load_settings({"port": 3}, environment, project)
    assert (settings.port, settings.host, settings.log_level, settings.session_hours) == (3, "b", "debug", 12)
    assert [settings.origin(k) for k in ("port", "host", "log_level", "session_hours")] == [
        "flag",
        "environment MAINSTAY_HOST",
        "file mainstay.yaml, line 4",
        "default",
    ]


def test_a_misspelt_setting_is_named_with_its_line_and_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings({}, {}, write(tmp_path, "settings:\n  prot: 1\n"))
    assert "line 2" in str(error.value)
    assert "'port'" in str(error.value)


def test_a_bad_value_names_its_source_and_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"environment MAINSTAY_PORT.*from 0 to 65535"):
        load_settings({}, {"MAINSTAY_PORT": "70000"}, tmp_path)


def test_a_database_password_is_not_shown_by_an_error_or_by_printing(tmp_path: Path) -> None:
    settings = load_settings({}, {"MAINSTAY_DATABASE_URL": "postgresql://me:hunter2@db/x"}, tmp_path)
    assert "hunter2" not in repr(settings)
    assert settings.database_url.reveal().endswith("@db/x")
