"""stagerelease: let a powerful model out in stages, and prove every decision and delivered byte."""

__version__ = "0.1.0"
