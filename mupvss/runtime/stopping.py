"""Stops on request, at a moment when all files are complete: between two training steps, or between two pictures elsewhere.

Raising an exception from the signal handler would be simpler, but compiled code that is running then may fail in its own way.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from mupvss.errors import StoppedError

PATIENCE = 2.0
"""Seconds after which a second request stops at once. Launchers and service managers send the first one twice."""


class Stop:
    """The request to stop, if there has been one."""

    requested = False
    signal = signal.SIGTERM
    since = 0.0

    def request(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested and now - self.since > PATIENCE:
            raise StoppedError(number)
        if not self.requested:
            self.requested, self.signal, self.since = True, signal.Signals(number), now

    def check(self) -> None:
        """Raises StoppedError if a stop was requested."""
        if self.requested:
            raise StoppedError(self.signal)


@contextlib.contextmanager
def stop_requests(*signals: signal.Signals) -> Iterator[Stop]:
    """Within the block, these signals only set `requested`; one that comes PATIENCE seconds later raises StoppedError at once.

    Only the main thread may set handlers; in another thread, signals keep their handlers.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.request) for number in signals}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


def leave_stopping_to_the_main_process(worker: int) -> None:
    """For a process that loads pictures: a signal to the whole group must not end it while the training is still saving."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
