"""What can go wrong, as a tree of typed errors.

Every error carries a message (what was wrong, with its value), a hint (what to do about it) and the
exit status the command line ends with. Catch :class:`GanrtError` to catch them all.

    GanrtError (1)
    ├── UsageError (2)               an argument or option that cannot be meant
    │   ├── UnknownModel             a model name or path that leads nowhere
    │   └── UnknownClass             a class the generator does not have
    ├── ModelError                   the ONNX file
    │   ├── ContractError            not what docs/contract.md asks for
    │   └── InferenceError           it failed, or made no pictures, while running
    ├── DeviceUnavailable            the device asked for does not work here
    ├── MissingExtra                 a package of an optional extra is not installed
    ├── DatasetError                 the folder written to or read
    │   ├── DatasetMismatch (3)      it holds something else than what was asked for
    │   ├── DatasetLocked            another run is writing it
    │   └── DatasetDamaged (5)       it is not what its ledger says
    ├── StorageError                 the file system refused
    │   └── StorageFull (4)          no space, inodes or quota left
    ├── Cancelled (130)              the caller, Ctrl-C or a signal stopped it
    └── TrainingError                training data, run folders, exports
        └── ParityError              the exported file does not equal its source
"""

from __future__ import annotations


class GanrtError(Exception):
    """Base of all errors raised on purpose. ``str(error)`` is the message and, below it, the hint."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class UsageError(GanrtError, ValueError):
    """An argument or option with a value that cannot be meant."""

    exit_code = 2


class UnknownModel(UsageError):
    """A model name that is not shipped, or a path that leads to no file."""


class UnknownClass(UsageError):
    """A class name or number that the generator does not have."""


class ModelError(GanrtError):
    """The generator's ONNX file cannot be used."""


class ContractError(ModelError):
    """The file is not an ONNX generator as docs/contract.md describes it."""


class InferenceError(ModelError):
    """ONNX Runtime failed on the generator, or what came out are no pictures."""


class DeviceUnavailable(GanrtError):
    """The device asked for does not work here; the hint says how to mend it."""


class MissingExtra(GanrtError):
    """A package of an optional extra is not installed."""


class DatasetError(GanrtError):
    """The dataset folder cannot be used."""


class DatasetMismatch(DatasetError):
    """The folder holds another dataset than the one asked for, or files that are not ganrt's."""

    exit_code = 3


class DatasetLocked(DatasetError):
    """Another run is writing the same part of the dataset."""


class DatasetDamaged(DatasetError):
    """The dataset's files are not what its ledger says."""

    exit_code = 5


class StorageError(GanrtError):
    """The file system refused to read or write."""


class StorageFull(StorageError):
    """No space, inodes or quota left."""

    exit_code = 4


class Cancelled(GanrtError):
    """Stopped on request. ``exit_code`` is 130, or 143 after SIGTERM."""

    exit_code = 130


class TrainingError(GanrtError):
    """Training data, a run folder or an export cannot be used."""


class ParityError(TrainingError):
    """An exported generator does not make the images its source makes."""
