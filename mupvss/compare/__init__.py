"""`mupvss compare`: several configs over several seeds, in one table."""
