import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mainstay.core.errors import ConfigError, InvalidInput, NotFound, did_you_mean
from mainstay.core.ids import new_id, new_span_id, uuid7_hex
from mainstay.core.money import nusd_from_usd, show_usd, usd_text
from mainstay.core.registry import Registry
from mainstay.core.secret import Secret, load_or_create_master_key
from mainstay.core.yamlfile import parse_yaml


def test_ids_made_in_many_threads_are_distinct_and_sort_by_time_in_each() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def fill(into: list[str]) -> None:
        into.extend(uuid7_hex() for _ in range(2000))

    threads = [threading.Thread(target=fill, args=(part,)) for part in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(part == sorted(part) for part in made)
    assert len({i for part in made for i in part}) == 8000
    assert new_id("key").startswith("key_")


def test_an_id_is_a_version_7_uuid_of_variant_10() -> None:
    value = uuid7_hex()
    assert value[12] == "7"
    assert value[16] in "89ab"


def test_a_forked_process_gives_out_ids_of_its_own() -> None:
    new_span_id()  # so that there are random bits that a child could inherit
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, new_span_id().encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 16).decode() != new_span_id()
    os.close(reading)
    os.close(writing)


def test_money_goes_to_nano_dollars_and_back_exactly() -> None:
    assert nusd_from_usd("0.000000001") == 1
    assert usd_text(nusd_from_usd("12.50")) == "12.5"
    assert [show_usd(n) for n in (None, 0, 2_100_000, 12_400_000_000)] == ["–", "$0", "$0.0021", "$12.40"]


@pytest.mark.parametrize("amount", ["", "ten", "NaN", "Infinity", "1e30", "1e999999999"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(InvalidInput):
        nusd_from_usd(amount)


def test_a_secret_cannot_be_printed_formatted_or_pickled() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    with pytest.raises(TypeError):
        secret.__reduce__()


def test_the_master_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    assert load_or_create_master_key(path) == load_or_create_master_key(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o077 == 0


def test_two_adapters_of_one_name_stop_start_up_and_name_both_files() -> None:
    registry: Registry[type] = Registry("parser")
    registry.register("pdf")(Path)
    with pytest.raises(ConfigError, match="pathlib"):
        registry.register("pdf")(threading.Thread)
    with pytest.raises(NotFound, match="Did you mean 'pdf'"):
        registry.get("pdff")


def test_a_wrong_name_gets_the_nearest_or_all() -> None:
    assert did_you_mean("viewr", ["viewer", "admin"]) == "Did you mean 'viewer'?"
    assert did_you_mean("zzz", ["viewer", "admin"]) == "Known: admin, viewer."


def test_a_key_written_twice_is_an_error_with_both_lines() -> None:
    with pytest.raises(ConfigError, match=r"line 3: 'a' is written twice. The first is on line 1"):
        parse_yaml("a: 1\nb: 2\na: 3\n", Path("x.yaml"))


def test_a_master_key_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_bytes(b"")
    with pytest.raises(ConfigError, match="0 bytes instead of 32"):
        load_or_create_master_key(tmp_path / "master.key")


def test_processes_that_start_at_once_share_one_master_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(load_or_create_master_key, [tmp_path / "master.key"] * 32))
    assert len(keys) == 1


def test_secrets_beyond_ascii_are_compared() -> None:
    assert Secret("naïve") == Secret("naïve")
    assert Secret("naïve") != Secret("naive")
