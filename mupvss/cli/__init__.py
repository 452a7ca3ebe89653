"""The command line: `mupvss` and its commands."""
