"""The face that unmodified Hub clients speak to."""

from stagerelease.http.hub import access, files, repos, upload

FILES = files.router
ROUTERS = (access.router, upload.router, repos.router)
