"""Once a person is erased, every page that staff can read still opens, and none says who it was."""

from __future__ import annotations

from test_every_page import TABLE, address, names

from browsing import browser
from stagerelease.identity import queries as people

__all__ = ["names"]  # a fixture
GONE = ("outsider", "researcher", "partner", "reviewer_b")


def called(world) -> dict[str, str]:
    """Return what is said of whom: names, handles and addresses by the name they belong to."""
    with world.box.works.begin(read_only=True) as work:
        rows = [people.load_person(work, world.actor(who).id) for who in GONE]
    return {
        text: row.id
        for row in rows
        for text in (row.handle, row.display_name, row.email)
        if text is not None
    }


def test_every_page_of_staff_opens_and_names_none_of_them(world, names):
    said = called(world)
    handles = {who: world.actor(who).name for who in GONE}
    assert any(text in browser(world, "owner").get("/staff/people").text for text in said)
    with world.client("owner") as owner:
        for who, handle in handles.items():
            got = owner.post(f"/api/v1/people/{handle}/erase", json={"reason": "Asked by letter."})
            assert got.status_code == 200, (who, got.text)
            pseudonym = got.json()["pseudonym"]
        asked = {"reason": "Asked again."}
        assert owner.post(f"/api/v1/people/{handle}/erase", json=asked).status_code == 404
        assert pseudonym in owner.get("/api/v1/people").text
    client, wrong = browser(world, "owner"), []
    wanted = [key.removeprefix("GET ") for key in TABLE if key.startswith("GET ")]
    pages = [address(path, {**names, "handle": pseudonym}) for path in wanted]
    pages += [f"/log/{idx}" for idx in range(60)]
    for path in pages:
        got = client.get(path)
        if got.status_code >= 500:
            wrong.append(f"{path}: {got.status_code}")
        if path.startswith(("/sign-in", "/design", "/static", "/docs")):
            continue  # these show the demo's personas, or people made up for the design
        wrong += [f"{path}: {text}" for text in said if text.lower() in got.text.lower()]
    assert wrong == []


def test_an_owner_erases_somebody_on_their_page_once_all_is_said(world):
    handle, sent = world.actor("outsider").name, {"reason": "Asked by letter.", "erased": ""}
    where = f"/staff/people/{handle}"
    with browser(world, "owner", follow_redirects=True) as client:
        assert "Erase this person" in client.get(where).text
        got = client.post(where + "/erase", data=sent)
        assert got.status_code == 422
        assert "Type the name exactly" in got.text
        assert "Asked by letter." in got.text  # what was typed is kept
        got = client.post(where + "/erase", data=sent | {"erased": handle, "reason": handle})
        assert got.status_code == 422
        assert "without naming the person" in got.text
        got = client.post(where + "/erase", data=sent | {"erased": handle})
        assert (got.status_code, got.url.path.startswith("/staff/people/erased-")) == (200, True)
        assert "What they decided stands under this name." in got.text
        assert "Erase this person" not in got.text
        assert client.get(where).status_code == 404
