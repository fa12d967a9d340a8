"""Pages without a browser: forgery, fixation, redirects, headers, limits, and hostile words."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import httpx
import pytest

from browsing import ANSWERS, HOSTILE, SAME, browser, cookie_for
from stagerelease.access import service as access
from stagerelease.http.pages.frame import POLICY, assets, environment, safe_next, span
from stagerelease.http.pages.guard import is_forged
from stagerelease.identity import entering, links, sessions
from stagerelease.identity import service as identity
from stagerelease.jobs.runner import run_one
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR

CROSS = {"Sec-Fetch-Site": "cross-site"}
ASK = "/models/demo/gpt2-mini-335M/request"


def errors_of(answer: httpx.Response) -> dict[str, str]:
    """Return the sentence beside each field, from the summary on top."""
    summary = re.search(r'id="errors".*?</ul>', answer.text, re.S)
    links_ = re.findall(r'href="#f-([a-z_]+)">(.*?)</a>', summary.group(0)) if summary else []
    return {key: html.unescape(words) for key, words in links_}


def facts_of(world, event):
    with world.box.works.begin(read_only=True) as work:
        rows = work.session.query(Job).filter(Job.kind == "notices.deliver").order_by(Job.id)
        return [row.payload["facts"] for row in rows if row.payload["event"] == event]


def link_of(world, event):
    return links.sign_link(world.box.link_key, facts_of(world, event)[-1]["link"])


def sign_in_token(world, *, next_path=""):
    """Give the outsider an address, ask for a link, and return its token."""
    with world.box.works.begin(OPERATOR) as work:
        if entering.find_by_address(work, "new@example.org") is None:
            identity.create_person(work, handle="new", display_name="New", email="new@example.org")
    with browser(world) as client:
        sent = client.post("/sign-in", data={"address": "new@example.org", "next": next_path})
        assert sent.headers["location"] == "/sign-in/sent"
    while run_one(world.box.works, {entering.JOB: entering.mail_sign_in}, "test"):
        pass
    return link_of(world, "account.sign_in")


# --- frame --------------------------------------------------------------------------------------


def test_every_page_carries_the_policy_and_refuses_to_be_framed(world):
    with browser(world) as client:
        for path in ("/", ASK, "/sign-in", "/report", "/nowhere", "/access/confirm?t=x"):
            headers = client.get(path).headers
            assert headers["content-security-policy"] == POLICY
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
            told = "strict-origin" if "?t=" in path else "same-origin"  # a link signs in
            assert headers.get_list("referrer-policy") == [told]
            assert headers["cache-control"] == "no-store"
    with world.client() as client:  # other faces keep theirs
        assert client.get("/livez").headers.get_list("referrer-policy") == ["no-referrer"]


def test_static_files_are_kept_for_ever_under_the_digest_of_what_they_are(world):
    with browser(world) as client:
        for name, asset in assets().items():
            got = client.get(asset.path)
            assert got.content == asset.body
            assert got.headers["cache-control"] == "public, max-age=31536000, immutable"
            again = client.get(asset.path, headers={"If-None-Match": got.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            bare = client.get(asset.path, headers={"Accept-Encoding": "identity"})
            assert (bare.content, "content-encoding" in bare.headers) == (asset.body, False)
            assert client.get(f"/static/{'0' * 16}/{name}").status_code == 404
        assert client.get("/static/../../settings.py/x").status_code == 404


def test_no_template_says_safe_or_writes_a_script_or_a_style():
    env = environment()
    for name in env.list_templates():
        source = env.loader.get_source(env, name)[0]
        assert "| safe" not in source
        assert "|safe" not in source
        assert "style=" not in source
        assert not re.search(r"\son[a-z]+=", source), name
        assert not re.search(r"<script(?! src=\"{{ )", source), name
        env.get_template(name)


def test_refusals_are_pages_to_a_browser_and_documents_to_a_program(world):
    with browser(world) as client:
        page = client.get("/nowhere", headers={"X-Request-Id": "abcdef-123456"})
        assert page.headers["content-type"].startswith("text/html")
        assert "abcdef-123456" in page.text
        assert "http.404" in page.text
        api = client.get("/api/v1/tracks/nothing")
        assert api.headers["content-type"].startswith("text/html")
        wrong = client.get("/access/confirm?t=x")
        assert wrong.status_code == 422
        assert "link.unknown" in wrong.text
        assert "ask for a new one" in wrong.text
    with world.client() as client:
        for path in ("/nowhere", "/api/v1/tracks/nothing"):
            document = client.get(path)
            assert document.headers["content-type"] == "application/problem+json"
            assert document.json()["request_id"]


def test_a_cookie_opens_no_api_and_a_token_opens_no_page(world):
    with browser(world, "owner") as client:
        assert client.get("/me").status_code == 200
        assert client.get("/api/v1/people").status_code == 401
    with world.client("owner") as client:
        assert client.get("/me").headers["location"] == "/sign-in?next=/me"


# --- forgery ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "origin", "cookie", "forged"),
    [
        ("same-origin", None, True, False),
        ("none", None, True, False),
        ("cross-site", None, True, True),
        ("same-site", None, True, True),
        ("cross-site", "https://here.example", True, True),
        (None, "https://here.example", True, False),
        (None, "https://evil.example", True, True),
        (None, "null", True, True),
        (None, None, True, True),
        (None, None, False, False),
        ("cross-site", None, False, True),
        (None, "https://evil.example", False, True),
        ("SAME-ORIGIN", None, True, True),
        ("", None, True, True),
    ],
)
def test_what_counts_as_forged(site, origin, cookie, forged):
    ours = frozenset({"https://here.example"})
    assert is_forged(site=site, origin=origin, ours=ours, has_cookie=cookie) is forged


def test_another_site_can_make_a_browser_do_nothing(world):
    with browser(world, "outsider") as client:
        for path in ("/sign-out", "/me/tokens", "/me/sessions/close", ASK, "/report", "/sign-in"):
            got = client.post(path, data={"name": "x"}, headers=CROSS)
            assert (got.status_code, "forbidden.cross-site" in got.text) == (403, True), path
        got = client.post("/me/tokens", data={"name": "x"}, headers=CROSS | {"Origin": "null"})
        assert got.status_code == 403
        assert client.get("/me").status_code == 200
        assert "No tokens" not in client.get("/me").text


def test_without_either_header_a_cookie_is_refused(world):
    cookies = {"sr": cookie_for(world, "outsider")}
    with httpx.Client(base_url=world.base_url, cookies=cookies) as client:
        assert client.post("/sign-out").status_code == 403
        assert client.post("/sign-out", headers={"Origin": world.base_url}).status_code == 303


# --- signing in ---------------------------------------------------------------------------------


def test_the_cookie_is_kept_from_scripts_and_other_sites(world):
    token = sign_in_token(world)
    with browser(world) as client:
        got = client.post("/sign-in/confirm", data={"t": token})
        cookie = got.headers["set-cookie"]
        assert re.match(r"sr=[A-Za-z0-9_-]{43};", cookie)
        for part in ("HttpOnly", "Path=/", "SameSite=lax", "Max-Age=604800"):
            assert part in cookie
        assert got.headers["location"] == "/me"
        assert client.get("/me").status_code == 200


def test_over_https_the_cookie_is_bound_to_its_host(world):
    world.box.settings.__class__.model_rebuild()
    secure = world.box.settings.model_copy(update={"public_url": "https://models.example"})
    object.__setattr__(world.box, "settings", secure)
    from live import serve_in_thread

    live, stop = serve_in_thread(world.box)
    try:
        token = sign_in_token(world)
        with httpx.Client(base_url=live.base_url, headers=SAME) as client:
            cookie = client.post("/sign-in/confirm", data={"t": token}).headers["set-cookie"]
        assert cookie.startswith("__Host-sr=")
        assert "Secure" in cookie
        assert "Domain" not in cookie
    finally:
        stop()


def test_a_planted_session_is_worth_nothing(world):
    planted = cookie_for(world, "outsider")
    token = sign_in_token(world)
    with browser(world) as client:
        client.cookies.set("sr", planted, domain="127.0.0.1")
        got = client.post("/sign-in/confirm", data={"t": token})
        fresh = re.match(r"sr=([^;]+)", got.headers["set-cookie"]).group(1)
    assert fresh != planted
    with world.box.works.begin(read_only=True) as work:
        assert sessions.authenticate_session(work, fresh).name == "new"
        with pytest.raises(Exception, match="signed out"):
            sessions.authenticate_session(work, planted)


def test_a_made_up_session_is_never_taken_over(world):
    token = sign_in_token(world)
    with browser(world) as client:
        client.cookies.set("sr", "A" * 43, domain="127.0.0.1")
        got = client.post("/sign-in/confirm", data={"t": token})
        assert "A" * 43 not in got.headers["set-cookie"]


def test_a_mail_scanner_burns_nothing_and_a_link_works_once(world):
    token = sign_in_token(world)
    with browser(world) as client:
        for _ in range(3):
            shown = client.get("/sign-in/confirm", params={"t": token})
            assert shown.status_code == 200
            assert "set-cookie" not in shown.headers
        assert client.head("/sign-in/confirm", params={"t": token}).status_code in (200, 405)
        assert client.post("/sign-in/confirm", data={"t": token}).status_code == 303
        client.cookies.clear()
        again = client.post("/sign-in/confirm", data={"t": token})
        assert (again.status_code, "link.used" in again.text) == (409, True)
        assert "set-cookie" not in again.headers


def test_a_link_is_over_after_a_quarter_of_an_hour(world):
    token = sign_in_token(world)
    world.clock.move(timedelta(minutes=15))
    with browser(world) as client:
        assert "link.expired" in client.post("/sign-in/confirm", data={"t": token}).text


def test_known_and_unknown_addresses_are_answered_alike(world):
    sign_in_token(world)
    answers = set()
    with browser(world) as client:
        for address in ("new@example.org", "nobody@example.org"):
            got = client.post("/sign-in", data={"address": address, "next": ""})
            kept = {k: v for k, v in got.headers.items() if k not in ("x-request-id", "date")}
            answers.add((got.status_code, got.text, str(sorted(kept.items()))))
    assert len(answers) == 1


def test_links_are_limited_by_address(world):
    with browser(world) as client:
        codes = [
            client.post("/sign-in", data={"address": "a@example.org"}).status_code
            for _ in range(entering.PER_ADDRESS + 1)
        ]
    assert codes == [303] * entering.PER_ADDRESS + [429]


ELSEWHERE = (
    *("//evil.example", "/\\evil.example", "https://evil.example/", "javascript:alert(1)"),
    *("/\t/evil.example", "\\\\evil.example", "/me\r\nSet-Cookie: a=b", "evil.example", "/é"),
)


def test_nobody_is_led_to_another_site(world):
    for path in ELSEWHERE:
        assert safe_next(path) == ""
    for path in ELSEWHERE[:4]:
        token = sign_in_token(world, next_path=path)
        with browser(world) as client:
            got = client.post("/sign-in/confirm", data={"t": token})
            assert got.headers["location"] == "/me"
    with browser(world, "outsider") as client:
        for path in ELSEWHERE:
            assert client.get("/sign-in", params={"next": path}).headers["location"] == "/me"


def test_one_is_led_back_to_the_page_one_asked_for(world):
    with browser(world) as client:
        there = client.get("/staff/requests?show=me").headers["location"]
        assert there == "/sign-in?next=/staff/requests%3Fshow%3Dme"
    token = sign_in_token(world, next_path="/staff/requests?show=me")
    with browser(world) as client:
        got = client.post("/sign-in/confirm", data={"t": token})
        assert got.headers["location"] == "/staff/requests?show=me"


def test_reading_pages_keeps_a_session_alive_and_leaving_ends_it(world):
    with browser(world, "outsider") as client:
        for _ in range(4):
            world.clock.move(timedelta(hours=11))
            assert client.get("/me").status_code == 200
        cookie = client.cookies.get("sr")
        assert client.post("/sign-out").headers["location"] == "/sign-in"
        client.cookies.set("sr", cookie, domain="127.0.0.1")
        assert client.get("/me").status_code == 303


# --- asking for access --------------------------------------------------------------------------


def test_nothing_typed_is_lost_and_what_is_wrong_is_said_beside_it(world):
    typed = {**ANSWERS, "email": "not an address", "purpose": "short", "no_sharing": ""}
    with browser(world) as client:
        got = client.post(ASK, data={**typed, "_do": "send"})
        assert (got.status_code, got.headers["location"]) == (303, f"{ASK}?check=1#errors")
        shown = client.get(got.headers["location"])
        assert set(errors_of(shown)) == {"email", "purpose", "no_sharing"}
        for words in ("not an address", "short", ANSWERS["storage"]):
            assert html.escape(words) in shown.text
        assert re.search(r'name="report_misuse"[^>]*checked', shown.text)
        assert not re.search(r'name="no_sharing"[^>]*checked', shown.text)
        client.post(ASK, data={**ANSWERS, "_do": "save"})
        assert "Your draft is saved" in client.get(f"{ASK}?saved=1").text
        done = client.post(ASK, data={**ANSWERS, "_do": "send"})
        assert done.headers["location"] == f"{ASK}/sent"
        assert "ada@university.example" in client.get(f"{ASK}/sent").text
        client.post("/access/confirm", data={"t": link_of(world, "request.confirm_address")})
        assert "You have asked already" in client.get(ASK).text


def test_a_draft_opens_to_its_browser_alone(world):
    with browser(world) as client:
        client.post(ASK, data={**ANSWERS, "_do": "save"})
        assert ANSWERS["purpose"] in client.get(ASK).text
        cookie = client.cookies.get("srd")
        assert ANSWERS["purpose"] not in client.get("/models/demo/gpt2-mini-774M/request").text
    with browser(world) as other:
        assert ANSWERS["purpose"] not in other.get(ASK).text
        other.cookies.set("srd", cookie[:-1] + "0", domain="127.0.0.1")
        assert ANSWERS["purpose"] not in other.get(ASK).text


def test_what_is_too_large_is_handed_back(world):
    typed = {**ANSWERS, "purpose": "x" * 30_000}
    with browser(world) as client:
        got = client.post(ASK, data={**typed, "_do": "save"})
        assert got.status_code == 413
        assert "x" * 30_000 in got.text
        assert "purpose" in errors_of(got)


def test_confirming_is_a_second_step_and_signs_in(world):
    with browser(world) as client:
        client.post(ASK, data={**ANSWERS, "_do": "send"})
        token = link_of(world, "request.confirm_address")
        for _ in range(2):
            shown = client.get("/access/confirm", params={"t": token})
            assert "set-cookie" not in shown.headers
            assert "Confirm and send" in shown.text
        got = client.post("/access/confirm", data={"t": token})
        there = got.headers["location"]
        assert re.match(r"/requests/arq_[0-9a-z]+\?sent=1", there)
        assert "Your request was sent" in client.get(there).text
        with browser(world) as other:
            assert "link.used" in other.post("/access/confirm", data={"t": token}).text
    with browser(world, "researcher") as stranger:
        assert stranger.get(there).status_code == 404


def test_an_alias_or_a_hidden_model_tells_nothing(world):
    with browser(world) as client:
        hidden = client.get(f"/models/{world.repos['internal']}/request")
        nothing = client.get("/models/demo/nothing-here/request")
        assert hidden.status_code == nothing.status_code == 404
        strip = lambda r, name: re.sub(  # noqa: E731
            r"[0-9a-f]{32}", "", r.text.replace(name, "")
        )
        assert strip(hidden, "gpt2-mini-1.5B") == strip(nothing, "nothing-here")


def test_hostile_words_stay_words(world):
    typed = {**ANSWERS, "name": HOSTILE, "organisation": HOSTILE, "purpose": HOSTILE * 2}
    fine = "".join(c for c in HOSTILE if c.isprintable())  # what the form takes
    kept = {**ANSWERS, "name": fine, "organisation": fine, "purpose": fine, "storage": fine}
    with browser(world) as client:
        client.post(ASK, data={**typed, "_do": "send"})
        pages = [client.get(ASK).text, client.get(f"{ASK}?check=1").text]
        assert set(errors_of(client.get(f"{ASK}?check=1"))) >= {"name", "organisation", "purpose"}
        client.post(ASK, data={**kept, "_do": "send"})
        told = facts_of(world, "request.confirm_address")
        assert told, errors_of(client.get(f"{ASK}?check=1"))
        got = client.post("/access/confirm", data={"t": link_of(world, "request.confirm_address")})
        there = got.headers["location"]
        client.post(there.split("?")[0] + "/reply", data={"message": fine})
        pages += [client.get(there).text, client.get("/me").text]
    number = there.split("/")[2].split("?")[0]
    with browser(world, "access_officer") as staff:
        pages += [staff.get("/staff/requests").text, staff.get(f"/staff/requests/{number}").text]
    with browser(world) as client:
        shown = client.post("/report", data={"text": "", "about": HOSTILE, "contact": HOSTILE})
        pages.append(shown.text)
        pages.append(client.get(f"/sign-in?next={HOSTILE[:40]}".replace("\x00", "")).text)
    for page in pages:
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "{{7*7}}" in page or "{{" not in page
        assert ">49" not in page
    assert sum("&lt;script&gt;" in page for page in pages) >= 6


# --- staff, signing, tokens, reports ------------------------------------------------------------


@pytest.fixture
def asked(world):
    """A request of the outsider that waits; its id."""
    answers = {k: True if v == "on" else v for k, v in ANSWERS.items()}
    with world.box.works.begin(world.actor("outsider")) as work:
        draft = access.save_draft(work, answers=answers, repo_id=world.repos["researcher"])
        return access.submit_draft(work, draft.id).check().request.id


def test_a_refused_step_keeps_what_was_typed(world, asked):
    with browser(world, "access_officer") as staff:
        here = f"/staff/requests/{asked}"
        got = staff.post(f"{here}/reject", data={"reason": "", "days": "7", "seen": "1"})
        assert (got.status_code, set(errors_of(got))) == (422, {"reason"})
        assert 'value="7"' in got.text
        got = staff.post(f"{here}/approve", data={"until": "2020-01-01", "comment": "Hello."})
        assert (got.status_code, set(errors_of(got))) == (422, {"until"})
        assert "Hello." in got.text
        got = staff.post(f"{here}/approve", data={"until": "tomorrow"})
        assert set(errors_of(got)) == {"until"}
        staff.post(f"{here}/assign", data={})
        got = staff.post(f"{here}/ask", data={"question": "Why so?", "seen": "1"})
        assert got.status_code == 412
        assert "Why so?" in got.text
        assert "What happened" not in got.text


def test_nobody_decides_their_own_request_nor_one_with_a_conflict(world, asked):
    with browser(world, "access_officer") as staff:
        here = f"/staff/requests/{asked}"
        staff.post(f"{here}/conflict", data={"conflict": "We wrote a paper together."})
        shown = staff.get(here).text
        assert "You declared a conflict of interest: We wrote a paper together." in shown
        assert "Approve request" not in shown
        got = staff.post(f"{here}/approve", data={"until": "2026-12-31"})
        assert got.status_code == 403
    with browser(world, "outsider") as applicant:
        assert applicant.get(here).status_code == 403
        shown = applicant.get(f"/requests/{asked}").text
        assert "We wrote a paper" not in shown


def test_a_session_that_ends_while_one_types_loses_no_word(world, asked):
    with browser(world, "outsider") as client:
        world.clock.move(timedelta(hours=13))
        got = client.post(f"/requests/{asked}/reply", data={"message": "A long <b>answer</b>."})
        assert got.status_code == 401
        assert "A long &lt;b&gt;answer&lt;/b&gt;." in got.text
        assert "Sign in" in got.text


def test_rejecting_tells_why_and_when_one_may_ask_again(world, asked):
    with browser(world, "access_officer") as staff:
        done = staff.post(
            f"/staff/requests/{asked}/reject", data={"reason": "No ethics review.", "days": "14"}
        )
        assert done.status_code == 303
    with browser(world, "outsider") as applicant:
        shown = applicant.get(f"/requests/{asked}").text
        assert "No ethics review." in shown
        assert "16 March 2026" in shown


def version_of(world, slug="researcher-terms"):
    with world.client("researcher") as client:
        return client.get(f"/api/v1/agreements/{slug}").json()


def test_an_agreement_is_signed_with_nothing_ticked_beforehand(world):
    version = version_of(world)
    here = f"/agreements/{version['id']}/sign"
    with world.box.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="demo-outsider", role="researcher")
    with browser(world, "outsider") as client:
        shown = client.get(here).text
        assert version["text_sha256"] in shown
        assert "checked" not in shown
        got = client.post(here, data={"text_sha256": version["text_sha256"], "typed_name": "O"})
        assert set(errors_of(got)) == {
            "typed_title",
            "authorised_to_bind",
            "consents_electronically",
        }
        assert 'value="O"' in got.text
        full = {
            "typed_name": "O",
            "typed_title": "Researcher",
            "authorised_to_bind": "on",
            "consents_electronically": "on",
        }
        stale = client.post(here, data={**full, "text_sha256": "0" * 64})
        assert stale.status_code == 412
        done = client.post(here, data={**full, "text_sha256": version["text_sha256"]})
        signature = done.headers["location"].split("?")[0]
        assert "Signed" in client.get(done.headers["location"]).text
        text = client.get(f"{signature}/text")
        assert text.text == version["text"]
        assert text.headers["content-disposition"].startswith("attachment")
        assert client.post(here, data={**full, "text_sha256": version["text_sha256"]}).status_code
    with browser(world, "access_officer") as staff:
        assert staff.get(signature).status_code == 200
    with browser(world, "other_partner") as stranger:
        assert stranger.get(signature).status_code == 404


def test_markdown_of_an_agreement_runs_nothing():
    from stagerelease.http.pages.markdown import render_text

    shown = render_text(
        "# A <script>alert(1)</script>\n\n[x](javascript:alert(1)) ![y](https://e.example/z.png)\n"
        "\n<img src=x onerror=alert(1)>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    for word in ("<script", "<img", "href", "src=h", "<a"):
        assert word not in shown, word
    assert "<h2>A " in shown
    assert "<td>1</td>" in shown


def test_a_token_is_shown_once_and_downloads(world):
    with browser(world, "researcher") as client:
        wrong = client.post("/me/tokens", data={"name": "", "lasts": "90"})
        assert set(errors_of(wrong)) == {"name", "scope"}
        good = {"name": HOSTILE[:40], "lasts": "30", "scope": "download"}
        got = client.post("/me/tokens", data=good)
        token = re.search(r"srp_[0-9A-Za-z]{36}", got.text).group(0)
        assert "<script" not in got.text.replace("<script src=", "")
        assert token not in client.get("/me/tokens").text
        with httpx.Client(base_url=world.base_url) as other:
            bearer = {"Authorization": f"Bearer {token}"}
            url = world.file("researcher")
            got = other.get(url, headers=bearer, follow_redirects=True)
            assert (got.status_code, len(got.content) > 100_000) == (200, True)
            assert other.get("/api/v1/people", headers=bearer).status_code == 403
            number = re.search(r"/me/tokens/(tok_[0-9a-z]+)/revoke", client.get("/me/tokens").text)
            client.post(number.group(0))
            assert client.get("/me/tokens?done=revoked").status_code == 200


def test_a_report_needs_no_account_and_its_reference_opens_it(world):
    with browser(world) as client:
        assert set(errors_of(client.post("/report", data={"text": " "}))) == {"text"}
        got = client.post("/report", data={"text": "On a forum.", "about": "", "contact": ""})
        assert got.status_code == 201
        reference = re.search(r'id="secret">([a-z2-7]{32})<', got.text).group(1)
        shown = client.post("/report/follow", data={"reference": reference})
        assert "On a forum." in shown.text
        assert client.post("/report/follow", data={"reference": "x"}).status_code == 404


def test_lengths_of_time_are_said_in_two_units():
    assert [span(s) for s in (0, 59, 60, 3661, 90061, 86400)] == [
        "less than a minute",
        "less than a minute",
        "1 minute",
        "1 hour 1 minute",
        "1 day 1 hour",
        "1 day",
    ]


def test_a_model_is_found_where_refusals_and_feeds_say_it_is(world):
    partner, internal = world.repos["partner"], world.repos["internal"]
    answer = browser(world).get(f"/{partner}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/models/{partner}")
    assert partner in browser(world).get(f"/models/{partner}").text
    refused = world.client("outsider").head(world.file("partner"), follow_redirects=True)
    told = refused.headers["x-error-message"]
    address = next(word for word in told.split() if word.startswith("http"))
    assert browser(world).get(address, follow_redirects=True).status_code == 200
    for unknown in (f"/{internal}", "/nobody/nothing", "/models/nobody/nothing"):
        assert browser(world).get(unknown).status_code == 404
    assert world.client().get("/api/whoami-v2").status_code == 401
