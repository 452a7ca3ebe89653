"""Leaving when asked to, at a moment when everything is whole: between two steps of a training, between two pictures elsewhere.

Raising an exception out of the signal handler would be simpler, but compiled code that is running then may fail in its own way.
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
"""Seconds after which a second request means: at once. Launchers and service managers send the first one twice."""


class Stop:
    """What has been asked for so far."""

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
        """StoppedError if a stop was requested."""
        if self.requested:
            raise StoppedError(self.signal)


@contextlib.contextmanager
def stop_requests(*signals: signal.Signals) -> Iterator[Stop]:
    """Within the block, these signals only set `requested`; a later one raises StoppedError at once.

    Only the main thread may set handlers; in another one, signals keep doing what they did.
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
    """For a process that loads pictures: a signal to the whole group must not take it away under a training that is saving."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
