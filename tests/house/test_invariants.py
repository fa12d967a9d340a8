"""The sixteen invariants of the domain, each with the tests that hold the program to it.

Where one of them draws its cases (a property, a state machine), it stands first.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from stagerelease.db.base import Base
from stagerelease.ledger import tables as ledger_tables
from stagerelease.partners import tables as partner_tables
from stagerelease.releases import tables as release_tables

ROOT = Path(__file__).resolve().parents[2]
JOINED = "services/test_joined_machine.py"
PROMOTING = "services/test_promotion_machine.py::test_through_the_services"
INVARIANTS: dict[int, tuple[str, ...]] = {
    1: (  # quorum of distinct people; requester and authors never count
        "rules/test_gates.py::test_authors_of_evidence_never_count",
        "rules/test_promotion_rules.py::test_the_same_person_counts_once",
        f"{JOINED}::what_was_decided_was_decided_by_enough",
    ),
    2: (  # approvals bind to the hash; all is checked again under a lock
        "rules/test_promotion_rules.py::test_changing_any_one_field_changes_the_hash",
        PROMOTING,
        "services/test_races.py::test_editing_against_approving",
        f"{JOINED}::apply",
    ),
    3: (  # nothing applies under an incident, a hold, or a gate that does not pass
        "rules/test_promotion_rules.py::test_one_thing_broken_blocks_and_says_what",
        f"{JOINED}::apply",
        "services/test_races.py::test_applying_against_a_hold",
    ),
    4: (  # which evidence counts
        "rules/test_gates.py::test_it_passes_only_on_evidence_that_counts_and_meets_it",
        "services/test_evidence_machine.py::test_evidence_waivers_and_retraction",
    ),
    5: (  # dwell counts from when the audience could fetch
        "rules/test_promotion_rules.py::test_held_time_is_the_union_of_the_holds_in_the_window",
        PROMOTING,
        "services/test_releases.py::test_dwell_counts_from_when_the_audience_could_fetch",
    ),
    6: (  # no grant above its track; withdrawing suspends
        "rules/test_partner_rules.py::"
        "test_nobody_is_let_in_above_the_stage_reached_nor_where_nobody_signs",
        f"{JOINED}::grants_are_never_above_their_track",
    ),
    7: (  # active only on a signature in force
        "rules/test_partner_rules.py::test_one_thing_amiss_is_enough_and_is_the_reason",
        "services/test_grants_machine.py::test_no_sequence_lets_in_who_may_not_be",
        f"{JOINED}::bytes_are_for_those_whom_the_rows_let_in",
    ),
    8: (  # the earliest end
        "rules/test_partner_rules.py::test_the_effective_end_is_none_of_the_later_ones",
    ),
    9: (  # every end by the clock, and announced
        "rules/test_partner_rules.py::test_the_answer_flips_exactly_at_its_own_end",
        "services/test_grant_ends.py::"
        "test_ten_years_give_one_event_for_each_end_and_no_access_after_it",
    ),
    10: (  # one authorize(), with a reason
        "rules/test_entitlement_rules.py::test_nothing_is_ever_allowed_without_a_ground_for_it",
        "http/test_every_route.py::test_every_role_on_every_route",
    ),
    11: (  # revoking cuts, lists the bytes, asks for their destruction
        f"{JOINED}::a_revocation_lists_every_byte_delivered",
        "http/test_resolve.py::test_every_ending_cuts_a_download_in_flight",
    ),
    12: (  # never deleted; erasure pseudonymises
        f"{JOINED}::nothing_signed_or_decided_is_ever_gone",
        "house/test_invariants.py::test_nothing_cascades_and_nothing_kept_is_deleted",
        "services/test_ledger.py::test_erasing_a_person_leaves_the_log_whole",
        "services/test_erasing.py::test_nothing_says_who_it_was_any_more",
    ),
    13: (  # a retry is the same download, under the same grant, by range
        "services/test_download_ranges.py::"
        "test_parts_in_any_order_make_one_download_complete_exactly_when_they_cover_it",
        f"{JOINED}::deliver",
    ),
    14: (  # one stops, two lift
        f"{JOINED}::what_was_decided_was_decided_by_enough",
        f"{JOINED}::resume",
        "services/test_partner_races.py::"
        "test_one_person_consenting_twice_at_once_does_not_count_twice",
    ),
    15: (  # change, log and outbox commit together
        f"{JOINED}::attempt",
        "e2e/test_kill.py::test_no_acknowledged_decision_is_lost",
    ),
    16: (  # the public reads applied requests and public fields
        f"{JOINED}::the_public_reads_what_was_done_and_no_private_word",
        "services/test_report_contents.py::test_the_public_report_holds_nothing_internal",
        "services/test_withheld.py::test_withdrawing_what_was_never_announced_does_not_announce_it",
    ),
}
KEPT = (
    *(release_tables.Approval, release_tables.Judgement, release_tables.Promotion),
    *(release_tables.StageEvent, release_tables.Waiver, release_tables.WaiverSignature),
    *(release_tables.Hold, release_tables.HoldLift, release_tables.PlanVersion),
    *(partner_tables.Signature, partner_tables.Grant, partner_tables.GrantEvent),
    *(partner_tables.AgreementVersion, partner_tables.DestructionAttestation),
    ledger_tables.LogLeaf,
)


def test_there_are_sixteen():
    assert sorted(INVARIANTS) == list(range(1, 17))


@pytest.mark.parametrize("name", sorted({n for names in INVARIANTS.values() for n in names}))
def test_each_named_test_is_there(name):
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())
    assert function in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def test_nothing_cascades_and_nothing_kept_is_deleted():
    """Of invariant 12 what can be read in the schema and in the source."""
    for table in Base.metadata.tables.values():
        for key in table.foreign_keys:
            assert key.ondelete is None, f"{table.name}.{key.parent.name}"
    kept = {table.__name__ for table in KEPT}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for call in (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id == "delete" and call.args:
                assert ast.unparse(call.args[0]) not in kept, path
