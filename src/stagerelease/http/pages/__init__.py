"""The pages: server-rendered, usable without JavaScript, under a strict content policy."""
