"""The OpenAI face: completions, chat, models, scores. See docs/inference.md."""

from stagerelease.http.openai.routes import router

ROUTERS = (router,)
