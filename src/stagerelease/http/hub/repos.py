"""What Hub clients ask about repositories: info, trees, refs, commits, who am I, may I."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.downloads.service import OPEN_FILES, FileMissing, refuse
from stagerelease.entitlements import service as entitlements
from stagerelease.http.begin import Begin, BeginPublic
from stagerelease.http.hub.wire import (
    last_commit,
    model_object,
    speak_hub,
    split_after,
    tree_entry,
)
from stagerelease.http.wire import origin_of
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, permissions_of, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import DomainError

router = APIRouter(tags=["hub"], dependencies=[Depends(speak_hub)], include_in_schema=False)
TREE_PAGE = 1000
LIST_PAGE = 100


@router.get("/api/whoami-v2")
def whoami(begin: Begin) -> dict[str, Any]:
    """Tell a client who its token belongs to."""
    with begin(read_only=True) as work:
        person = people.load_person(work, work.actor.id)
        organisations = [people.load_organisation(work, o) for o in work.actor.organisations]
        tokens = people.list_tokens(work, person_id=person.id)
        token = next(t for t in tokens if t.id == work.actor.token_id)
        writes = Permission.CATALOG_WRITE in permissions_of(work.actor)
        return {
            "type": "user",
            "id": person.id,
            "name": person.handle,
            "fullname": person.display_name,
            "email": person.email,
            "emailVerified": False,
            "isPro": False,
            "orgs": [
                {"type": "org", "id": o.id, "name": o.slug, "fullname": o.name}
                for o in organisations
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {
                    "displayName": token.name,
                    "role": "write" if writes else "read",
                    "createdAt": iso(token.created_at),
                },
            },
        }


@router.get("/api/agent-harnesses")
async def agent_harnesses() -> dict[str, Any]:
    """Answer the first call of every client; there is nothing to tell."""
    return {}


@router.get("/api/models")
def list_models(
    request: Request,
    response: Response,
    begin: BeginPublic,
    search: str = "",
    author: str = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = LIST_PAGE,
    cursor: str = "",
) -> list[dict[str, Any]]:
    """List what the caller may know of, by name; nothing else, not even as a gap."""
    with begin(read_only=True) as work:
        wanted = [
            v
            for v in sorted(catalog.list_variants(work), key=lambda v: v.repo_id)
            if v.repo_id > cursor
            and search.lower() in v.repo_id.lower()
            and (not author or v.repo_id.startswith(f"{author}/"))
        ]
        found: list[dict[str, Any]] = []
        for variant in wanted:
            if len(found) > limit:
                break
            try:
                entitled = entitlements.see(work, work.actor, variant.repo_id)
            except DomainError:
                continue  # not visible to this caller, or empty: it is as if it did not exist
            found.append(model_object(entitled, []))
    if len(found) > limit:
        found = found[:limit]
        url = request.url.include_query_params(cursor=found[-1]["id"])
        response.headers["Link"] = f'<{origin_of(request)}{url.path}?{url.query}>; rel="next"'
    return found


def _info(begin: BeginPublic, repo_id: str, rev: str, *, blobs: bool) -> dict[str, Any]:
    with begin(read_only=True) as work:
        entitled = entitlements.see(work, work.actor, repo_id, rev)
        files = catalog.files(work, entitled.revision.id)
        if not entitled.decision.allowed:
            # The page of a gated model is public; which files and branches it has is not.
            if rev not in ("main", entitled.revision.id):
                raise refuse(entitled.decision, work.actor)
            files = [file for file in files if file.path in OPEN_FILES]
        return model_object(entitled, files, blobs=blobs)


@router.get("/api/models/{alias}/refs")
def alias_refs(begin: BeginPublic, alias: str) -> None:
    """Send the refs of a name without a namespace to its repository."""
    alias_info(begin, alias)


@router.get("/api/models/{ns}/{name}")
def model_info(begin: BeginPublic, ns: str, name: str, blobs: bool = False) -> dict[str, Any]:
    """Describe a repository at ``main``."""
    return _info(begin, f"{ns}/{name}", "main", blobs=blobs)


@router.get("/api/models/{ns}/{name}/revision/{rev:path}")
def revision_info(
    begin: BeginPublic, ns: str, name: str, rev: str, blobs: bool = False
) -> dict[str, Any]:
    """Describe a repository at ``rev``."""
    return _info(begin, f"{ns}/{name}", rev, blobs=blobs)


def _entitled(work: Work, repo_id: str, rev: str) -> entitlements.Entitled:
    entitled = entitlements.see(work, work.actor, repo_id, rev)
    if not entitled.decision.allowed:
        raise refuse(entitled.decision, work.actor)
    return entitled


@router.get("/api/models/{ns}/{name}/tree/{rest:path}")
def tree(
    request: Request,
    response: Response,
    begin: BeginPublic,
    ns: str,
    name: str,
    recursive: bool = False,
    expand: bool = False,
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=TREE_PAGE)] = TREE_PAGE,
) -> list[dict[str, Any]]:
    """List files (and directories) below a path."""
    rev, path = split_after(request, "/tree/")
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    with begin(read_only=True) as work:
        entitled = _entitled(work, f"{ns}/{name}", rev)
        below = [f for f in catalog.files(work, entitled.revision.id) if f.path.startswith(prefix)]
        if prefix and not below:
            raise FileMissing(f"There is no directory {path!r}.", commit=entitled.revision.id)
        entries: list[dict[str, Any]] = []
        seen: set[str] = set()
        for file in below:
            parts = file.path[len(prefix) :].split("/")
            depth = len(parts) - 1
            for i in range(depth if recursive else min(depth, 1)):
                directory = prefix + "/".join(parts[: i + 1])
                if directory not in seen:
                    seen.add(directory)
                    entry = {"type": "directory", "path": directory, "size": 0}
                    entry["oid"] = entitled.revision.manifest_sha256[:40]
                    if expand:
                        entry["lastCommit"] = last_commit(entitled.revision)
                    entries.append(entry)
            if recursive or depth == 0:
                entries.append(tree_entry(file, entitled.revision, expand=expand))
    entries.sort(key=lambda e: str(e["path"]))
    rest = [e for e in entries if str(e["path"]) > cursor]
    if len(rest) > limit:
        url = request.url.include_query_params(cursor=str(rest[limit - 1]["path"]))
        raw = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        response.headers["Link"] = f'<{origin_of(request)}{raw}?{url.query}>; rel="next"'
    return rest[:limit]


@router.post("/api/models/{ns}/{name}/paths-info/{rev:path}")
def paths_info(
    begin: BeginPublic,
    ns: str,
    name: str,
    rev: str,
    paths: Annotated[list[str], Form()],
    expand: Annotated[bool, Form()] = False,
) -> list[dict[str, Any]]:
    """Describe the named paths; unknown ones are left out, as clients expect."""
    with begin(read_only=True) as work:
        entitled = _entitled(work, f"{ns}/{name}", rev)
        files = {f.path: f for f in catalog.files(work, entitled.revision.id)}
        folders = _folders(files)
        found: list[dict[str, Any]] = []
        for path in paths:
            if path in files:
                found.append(tree_entry(files[path], entitled.revision, expand=expand))
            elif path in folders:
                oid = entitled.revision.manifest_sha256[:40]
                found.append({"type": "directory", "path": path, "size": 0, "oid": oid})
        return found


def _folders(paths: Iterable[str]) -> frozenset[str]:
    """Return every folder that one of ``paths`` lies in, however deep."""
    return frozenset(path[:at] for path in paths for at, c in enumerate(path) if c == "/")


@router.get("/api/models/{ns}/{name}/refs")
def refs(
    begin: BeginPublic, ns: str, name: str, include_prs: bool = False
) -> dict[str, list[dict[str, str]]]:
    """List branches and tags whose revisions the caller may have."""
    with begin(read_only=True) as work:
        entitled = _entitled(work, f"{ns}/{name}", "main")
        answer: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
        for ref in catalog.list_refs(work, entitled.variant.id):
            try:
                seen = _entitled(work, f"{ns}/{name}", ref.name)
            except DomainError:
                continue  # a ref to something the caller may not have does not exist for them
            branch = ref.kind == "branch"
            answer["branches" if branch else "tags"].append(
                {
                    "name": ref.name,
                    "ref": f"refs/{'heads' if branch else 'tags'}/{ref.name}",
                    "targetCommit": seen.revision.id,
                }
            )
        if include_prs:
            answer["pullRequests"] = []
        return answer


@router.get("/api/models/{ns}/{name}/commits/{rev:path}")
def commits(begin: BeginPublic, ns: str, name: str, rev: str) -> list[dict[str, Any]]:
    """List the history of a revision, as far as the caller may have it."""
    with begin(read_only=True) as work:
        entitled = _entitled(work, f"{ns}/{name}", rev)
        rows = catalog.lineage(work, entitled.revision.id)
        allowed = [
            row
            for row in rows
            if entitlements.authorize(
                work, work.actor, variant=entitled.variant, revision=row
            ).decision.allowed
        ]
        return [
            {
                "id": row.id,
                "title": row.message.partition("\n")[0],
                "message": row.message.partition("\n")[2],
                "date": iso(row.created_at),
                "authors": [{"user": entitled.variant.repo_id.partition("/")[0]}],
            }
            for row in allowed
        ]


@router.get("/api/models/{ns}/{name}/auth-check")
def auth_check(begin: BeginPublic, ns: str, name: str) -> dict[str, bool]:
    """Tell whether the caller may have the files at ``main``."""
    with begin(read_only=True) as work:
        _entitled(work, f"{ns}/{name}", "main")
        return {"ok": True}


@router.get("/api/models/{ns}/{name}/auth-check/write")
def auth_check_write(begin: BeginPublic, ns: str, name: str) -> dict[str, bool]:
    """Tell whether the caller may add revisions."""
    with begin(read_only=True) as work:
        entitlements.see(work, work.actor, f"{ns}/{name}")
        require(work.actor, Permission.CATALOG_WRITE)
        return {"ok": True}


@router.get("/api/models/{alias}")
@router.get("/api/models/{alias}/{verb}/{rest:path}")
def alias_info(begin: BeginPublic, alias: str) -> None:
    """Send a name without a namespace (``gpt2``) to its repository, when the caller may know it."""
    with begin(read_only=True) as work:
        entitlements.see(work, work.actor, alias)
