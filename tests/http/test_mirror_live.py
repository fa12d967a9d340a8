"""Mirroring over real HTTP: one of our own servers is the other Hub."""

from __future__ import annotations

import pytest

from make_catalog import make_repo
from stagerelease.catalog import queries
from stagerelease.catalog.pull import pull
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Gated


def test_a_partner_mirrors_what_it_was_granted_and_nothing_else(world, works, blobs, tmp_path):
    source = world.repos["partner"]
    make_repo(works, repo_id=source)
    with pytest.raises(Gated):
        pull(works, blobs, OPERATOR, source, from_url=world.base_url, staging=tmp_path / "s")
    row = pull(
        works,
        blobs,
        OPERATOR,
        source,
        from_url=world.base_url,
        token=world.tokens["partner"],
        staging=tmp_path / "s",
    )
    with world.box.works.begin(OPERATOR, read_only=True) as work:
        variant = queries.load_variant(work, source)
        there = queries.load_revision(work, str(queries.find_ref(work, variant.id, "main")))
    assert row.manifest_sha256 == there.manifest_sha256
    assert there.id in row.message
