import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.core.content import BlobStore, canonical_json, digest_json
from mainstay.core.errors import InvalidInput, NotFound

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
values = st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=20)


@given(st.dictionaries(st.text(min_size=1), values, min_size=2))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, object]) -> None:
    assert digest_json(value) == digest_json(dict(reversed(value.items())))


def test_equal_text_in_two_unicode_forms_has_one_digest() -> None:
    assert digest_json({"name": "caf\u00e9"}) == digest_json({"name": "cafe\u0301"})


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(InvalidInput):
        canonical_json({"score": math.nan})


@given(st.binary(max_size=2000))
def test_a_blob_comes_back_as_it_was_stored(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    blobs = BlobStore(tmp_path_factory.mktemp("blobs"))
    assert blobs.get(blobs.put(data)) == data


def test_a_damaged_blob_is_not_served(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = blobs.put(b"the truth")
    next(tmp_path.glob("??/*")).write_bytes(b"the lie")
    with pytest.raises(NotFound, match="damaged"):
        blobs.get(digest)
