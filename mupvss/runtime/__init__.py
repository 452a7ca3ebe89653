"""What a process is: how it was started, what it says, how it stops, what it computes on. Knows only `files` and `errors`."""
