"""The command line: one sub-command is one service call."""
