"""The commands, one file for each kind: what they take, and what they call."""
