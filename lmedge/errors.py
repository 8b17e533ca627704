"""Every error that lmedge raises on purpose.

LmedgeError
├── ConfigError (ValueError)            a run configuration that cannot be used
├── DataError (ValueError)              images, labels or lists that cannot be used
├── SchemaError (ValueError)            landmark definitions that do not fit together
├── InputError (ValueError)             a call with an argument that cannot be used
│   └── OwnershipError                  a call from a thread or a process that did not open the engine
├── BundleError                         a bundle that cannot be opened
│   ├── BundleFormatError               its manifest is malformed, unsafe or too new
│   ├── DigestMismatchError             a file's bytes are not the ones the manifest promises
│   └── EngineMismatchError             an engine built for another device or engine version
├── BackendUnavailableError (ImportError)   an engine that is not installed here
│   └── DeviceUnavailableError          an engine that is here, on a device that is not
├── EngineError                         an engine that failed on a call, or answered what cannot be an answer
├── DeadlineError (TimeoutError)        an answer that was not there in time
├── ExportError                         a network that cannot be exported or compiled
├── CalibrationError                    images that cannot calibrate a quantiser
└── GateError                           a check that says no
    ├── ParityError                     an engine's answers differ from the reference
    └── AccuracyError                   the error on labelled faces is above its limit

A message says what was expected, what came, and what to type next.
"""


class LmedgeError(Exception):
    """Base of all errors that lmedge raises on purpose."""


class ConfigError(LmedgeError, ValueError):
    """A run configuration that cannot be used."""


class DataError(LmedgeError, ValueError):
    """Images, labels or lists that cannot be used."""


class SchemaError(LmedgeError, ValueError):
    """Landmark definitions that do not fit together."""


class InputError(LmedgeError, ValueError):
    """A call with an argument that cannot be used."""


class OwnershipError(InputError):
    """A call from a thread or a process that did not open the engine."""


class BundleError(LmedgeError):
    """A bundle that cannot be opened."""


class BundleFormatError(BundleError):
    """A manifest that is malformed, unsafe or too new."""


class DigestMismatchError(BundleError):
    """A file whose bytes are not the ones the manifest promises."""


class EngineMismatchError(BundleError):
    """An engine that was built for another device or engine version."""


class BackendUnavailableError(LmedgeError, ImportError):
    """An engine that is not installed on this machine."""


class DeviceUnavailableError(BackendUnavailableError):
    """An installed engine that was asked for a device it does not have."""


class EngineError(LmedgeError):
    """An engine that failed on a call, or answered what cannot be an answer."""


class DeadlineError(LmedgeError, TimeoutError):
    """An answer that was not there in time."""


class ExportError(LmedgeError):
    """A network that cannot be exported or compiled."""


class CalibrationError(LmedgeError):
    """Images that cannot calibrate a quantiser."""


class GateError(LmedgeError):
    """A check that says no."""


class ParityError(GateError):
    """An engine whose answers differ from the reference by more than the gate allows."""


class AccuracyError(GateError):
    """An error on labelled faces that is above its limit."""
