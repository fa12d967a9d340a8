"""``python -m stagerelease``."""

from stagerelease.cli.app import main

main()
