"""`requirements.lock` pins every package that is needed, by hash, and names no place to get it from."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.docs.blocks import ROOT

LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def test_every_line_is_a_pinned_package_or_one_of_its_hashes() -> None:
    package = r"[a-z0-9._-]+==[0-9a-z.+!]+ \\\n(?:    --hash=sha256:[0-9a-f]{64} \\\n)*    --hash=sha256:[0-9a-f]{64}\n"
    assert re.fullmatch(rf"(?:{package})+", LOCK)


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {canonicalize_name(name): Version(version) for name, version in re.findall(r"^(\S+)==(\S+) ", LOCK, re.M)}
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        wanted = Requirement(line)
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, f"{line}: renew the lock (README, Install)"
