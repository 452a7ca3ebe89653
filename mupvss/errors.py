"""What the user can mend. Every message says what came, what was expected and what to do, and names the file."""


class ConfigError(ValueError):
    """The config cannot be used; the message names the file and the key."""


class DataError(ValueError):
    """The user's data cannot be used as it is; the message names the picture, mask or table."""


class WeightsError(ValueError):
    """Pretrained weights are missing, damaged or of another network."""


class DownloadError(ValueError):
    """A file cannot be fetched, is not the one expected, or cannot be unpacked safely."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another kind."""


class TrainingDivergedError(RuntimeError):
    """A loss became infinite or undefined; the message names the pictures of the batch."""
