"""The process: how it was started, what it prints, how it stops, on what it computes. Imports only `files` and `errors`."""
