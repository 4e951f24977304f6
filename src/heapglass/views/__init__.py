"""One function a command: a target in, an answer out. Nothing here prints."""
