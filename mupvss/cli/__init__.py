"""The command `mupvss`: what is typed, and what it calls."""
