"""The face that unmodified Hub clients speak to."""

from stagerelease.http.hub import access, files, repos, upload

ROUTERS = (access.router, upload.router, repos.router, files.router)
