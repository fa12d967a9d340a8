"""The demo world: four really trained miniatures, one at each stage, and people by role."""
