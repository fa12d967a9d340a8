"""The catalog over JSON: staff see everything, nobody else sees anything."""

from __future__ import annotations

import httpx

from make_catalog import REPO, make_checkpoint, make_repo, make_staff
from stagerelease.catalog import service
from stagerelease.catalog.importer import import_directory
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR

PATHS = (
    "/api/v1/catalog/families",
    "/api/v1/catalog/repos",
    f"/api/v1/catalog/repos/{REPO}/revisions",
)


def test_staff_see_everything_and_nobody_else_anything(server, works, blobs, tmp_path):
    make_repo(works)
    directory = make_checkpoint(tmp_path / "tiny")
    rows = []
    for message in ("first", "second"):
        (directory / "README.md").write_text(f"{message}\n")
        rows.append(
            import_directory(
                works, blobs, OPERATOR, directory=directory, repo_id=REPO, message=message
            )
        )
    with works.begin(OPERATOR) as work:
        service.seed_gpt2(work)
        identity.create_person(work, handle="guest", display_name="Guest")
        guest = identity.create_token(work, person="guest", name="t")[1]
    auditor = make_staff(works, handle="aud", role="auditor")

    def get(path: str, token: str | None = auditor, **params) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(server.base_url + path, headers=headers, params=params)

    for path in PATHS:
        assert get(path, None).status_code == 401
        assert get(path, guest).status_code == 403
        assert get(path).status_code == 200
    assert get("/api/v1/catalog/repos/acme/none/revisions").status_code == 404
    assert {f["id"] for f in get(PATHS[0]).json()} == {"acme", "gpt-2"}
    repos = {r["repo_id"]: r for r in get(PATHS[1]).json()}
    assert repos["openai/gpt2-1.5B"]["parameters"] == 1_557_611_200
    assert repos[REPO]["refs"] == [{"name": "main", "kind": "branch", "revision_id": rows[1].id}]
    revisions = get(PATHS[2]).json()
    assert {r["id"]: r["message"] for r in revisions} == {rows[0].id: "first", rows[1].id: "second"}
    assert {f["path"] for f in revisions[0]["files"]} == {p.name for p in directory.iterdir()}
    # page by page gives the same, and the link is absolute
    seen, url = [], f"{server.base_url}{PATHS[1]}?limit=2"
    while url:
        answer = httpx.get(url, headers={"Authorization": f"Bearer {auditor}"})
        seen += [r["repo_id"] for r in answer.json()]
        url = answer.links.get("next", {}).get("url")
    assert sorted(seen) == sorted(repos)
