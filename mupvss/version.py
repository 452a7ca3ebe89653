"""The version of the toolbox, as written into result files and checkpoints."""

VERSION = "0.2.0"
