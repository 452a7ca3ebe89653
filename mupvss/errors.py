"""Errors that the user can fix. Every message says what was found, what was expected and what to do, and names the file.

The command shows a `UserError` as one line. Anything else is a bug in mupvss: it shows its traceback and asks for a report.
"""


class UserError(ValueError):
    """An error that the user can fix."""


class ConfigError(UserError):
    """The config cannot be used; the message names the file and the key."""


class DataError(UserError):
    """The user's data cannot be used as it is; the message names the picture, mask or table."""


class WeightsError(UserError):
    """Pretrained weights are missing, damaged or belong to another network."""


class DownloadError(UserError):
    """A file cannot be fetched, is not the one expected, or cannot be unpacked safely."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of another kind."""


class MissingExtraError(UserError):
    """A feature needs packages that are not installed; the message names the extra that provides them."""


class TrainingDivergedError(UserError):
    """A loss became infinite or undefined; the message names the pictures of the batch."""


class OutOfMemoryError(RuntimeError):
    """Memory ran out; the message says what to reduce."""


class StoppedError(BaseException):
    """Raised after a request to stop (SIGTERM, Ctrl-C), once all is saved. Not an Exception, so that no handler catches it by
    chance."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


NO_MEMORY = ("can't allocate memory", "std::bad_alloc", "CUDA error: out of memory", "MPS backend out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has an exception class for this on a GPU, but only a message on a CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in NO_MEMORY)
    )
