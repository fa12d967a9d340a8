"""Agreements, signatures, grants and access requests over JSON, against a live server."""

from __future__ import annotations

from datetime import timedelta

from test_access_api import GOOD

from stagerelease.kernel.clock import iso


def test_an_organisation_reads_signs_and_is_let_in(world):
    with world.client("other_partner") as partner, world.client("access_officer") as officer:
        terms = partner.get("/api/v1/agreements/model-sharing").json()
        assert terms["text"].startswith("# Model-sharing agreement")
        signature = {
            "version_id": terms["id"],
            "text_sha256": "0" * 64,
            "typed_name": "Bea Example",
            "typed_title": "Director",
            "authorised_to_bind": True,
            "consents_electronically": True,
            "organisation": "partner-b",
        }
        stale = partner.post("/api/v1/signatures", json=signature)
        assert (stale.status_code, stale.json()["reason"]) == (412, "signature.text")
        signature["text_sha256"] = terms["text_sha256"]
        for field, value in (("authorised_to_bind", False), ("consents_electronically", "true")):
            wrong = partner.post("/api/v1/signatures", json=signature | {field: value})
            assert wrong.status_code == 422, field
        made = partner.post("/api/v1/signatures", json=signature)
        assert (made.status_code, made.json()["state"]) == (201, "in_force")
        known = officer.get("/api/v1/grants").json()
        track = next(g["track_id"] for g in known if g["audience"] == "partner")
        grant = {
            "track_id": track,
            "organisation": "partner-b",
            "purpose": "Measuring.",
            "permissions": ["infer", "download"],
            "valid_until": iso(world.clock.now() + timedelta(days=90)),
        }
        tried = officer.post("/api/v1/grants", json=grant, params={"dry_run": True})
        assert tried.status_code == 201
        assert partner.get("/api/v1/grants").json() == [], "a dry run leaves nothing"
        naive = officer.post("/api/v1/grants", json=grant | {"valid_until": "2026-05-01T00:00:00"})
        assert naive.status_code == 422
        issued = officer.post("/api/v1/grants", json=grant)
        assert issued.status_code == 201
        assert issued.json()["permissions"] == ["download", "infer"]
        assert partner.head(world.file("partner"), follow_redirects=True).status_code == 200
        again = officer.post("/api/v1/grants", json=grant)
        assert again.status_code == 409
        assert again.json()["blockers"][0]["code"] == "grant.exists"


def test_a_grant_is_stopped_at_the_version_that_was_seen_and_declared_destroyed(world):
    with world.client("partner") as partner, world.client("access_officer") as officer:
        partner.get(world.file("partner"), follow_redirects=True)
        [grant] = partner.get("/api/v1/grants").json()
        url = f"/api/v1/grants/{grant['id']}"
        why = {"reason": "Terms broken."}
        late = officer.post(f"{url}/revoke", json=why, headers={"If-Match": '"99"'})
        assert late.status_code == 412
        assert partner.post(f"{url}/revoke", json=why).status_code == 403
        seen = {"If-Match": str(grant["version"])}
        assert officer.post(f"{url}/revoke", json=why, headers=seen).json()["state"] == "revoked"
        assert partner.head(world.file("partner"), follow_redirects=True).status_code == 403
        [delivery] = partner.get(f"{url}/deliveries").json()
        assert delivery["path"] == "model.safetensors"
        page = partner.get(url).json()
        assert page["attestation"]["delivered"][0]["sha256"] == delivery["sha256"]
        assert page["standing"]["reason"] == "grant.revoked"
        done = partner.post(
            f"{url}/attest",
            json={"statement": "All copies are destroyed.", "typed_name": "Ann Other"},
        )
        assert done.status_code == 200
        assert done.json()["attested_at"] is not None


def test_a_list_is_followed_to_its_end(world):
    with world.client("access_officer") as officer:
        seen, url = [], "/api/v1/agreements?limit=1"
        while url:
            page = officer.get(url)
            seen += [row["agreement"] for row in page.json()]
            url = page.links.get("next", {}).get("url")
    assert sorted(seen) == ["model-sharing", "researcher-terms"]


def test_a_request_is_asked_decided_and_taken_back(world):
    with world.client("outsider") as outsider, world.client("access_officer") as officer:
        url = "/api/v1/access-requests"
        repo = world.repos["researcher"]
        body = {"repo_id": repo, "fields": GOOD}
        hidden = outsider.post(url, json={"repo_id": world.repos["internal"]})
        assert hidden.status_code == 404
        asked = outsider.post(url, json=body).json()
        assert outsider.post(url, json=body).json()["id"] == asked["id"]
        one = f"{url}/{asked['id']}"
        refused = officer.post(f"{one}/accept", json={})
        assert (refused.status_code, refused.json()["reason"]) == (409, "access.no-signature")
        assert "researcher-terms" in refused.json()["next_step"]
        rejected = officer.post(f"{one}/reject", json={"reason": "No.", "reapply_after_days": 0})
        assert rejected.json()["status"] == "rejected"
        page = outsider.get(one).json()
        assert [e["to_state"] for e in page["events"]] == ["submitted", "rejected"]
        listed = officer.get(url, params={"repo_id": repo, "status": "rejected"}).json()
        assert [row["id"] for row in listed] == [asked["id"]]
        fresh = outsider.post(url, json=body).json()
        assert fresh["id"] != asked["id"]
        gone = outsider.post(f"{url}/{fresh['id']}/withdraw")
        assert gone.json()["status"] == "withdrawn"
