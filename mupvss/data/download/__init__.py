"""Data sets from the network: fetched so that a broken-off download goes on, verified by their hash, unpacked with care."""
