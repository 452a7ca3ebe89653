"""Scenes drawn by our own code: the built-in data set, with exact masks and a known telling part in every object."""
