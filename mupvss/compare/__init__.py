"""Several configs, several seeds, one table: `mupvss compare`."""
