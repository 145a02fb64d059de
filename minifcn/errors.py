"""Errors that a user can mend: each message names the value (and the file) and the rule it broke.

The command line prints them as one sentence and exits with 2; a traceback means a fault of ours.
"""


class MinifcnError(ValueError):
    """Base of all errors that minifcn raises on purpose."""


class DataError(MinifcnError):
    """An image, a label or a data set that breaks a rule; the message names the file."""


class CheckpointError(MinifcnError):
    """A checkpoint that is corrupt, foreign, or made for another network."""


class DeviceError(MinifcnError):
    """A device that is unknown or absent, a kernel it lacks, or tensors of two devices in one op."""


class TrainingError(MinifcnError):
    """A training run that cannot go on; the message names the step and what was kept."""


class FileWriteError(MinifcnError):
    """A file that could not be written (full disk, missing folder, no permission); the old one is kept."""
