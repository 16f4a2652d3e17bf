"""Errors a user can cause: each says what was wrong, what was expected and what to do next.

Everything that reaches a person goes through these types, so that a message never holds a
traceback, an address in memory or (on the server) a path. `assert` stays for invariants.
"""

from __future__ import annotations


class IngleError(Exception):
    """Base of every error a user can cause.

    `code` is a stable word for programs, `str(error)` one or two sentences for people.
    """

    code = "error"


class ConfigError(IngleError):
    """A `config.json` that is missing a value, contradicts itself or asks for impossible sizes."""

    code = "invalid_config"


class WeightsError(IngleError):
    """A weight file that is damaged, incomplete or does not fit its config."""

    code = "invalid_weights"


class MemoryNeededError(IngleError):
    """A model that does not fit into the memory that is free."""

    code = "not_enough_memory"


class ModelNotFoundError(IngleError):
    """No model folder where the user pointed."""

    code = "model_not_found"


class InvalidRequestError(IngleError):
    """A request that cannot be honoured; `param` names the offending field where there is one."""

    code = "invalid_request_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthError(InvalidRequestError):
    """Prompt (or prompt plus requested output) longer than the model's context."""

    code = "context_length_exceeded"


class SealError(IngleError):
    """A process that cannot be sealed, or a seal that does not hold."""

    code = "cannot_seal"


class PolicyError(IngleError):
    """A policy file that cannot be read, or that says something no policy can say."""

    code = "invalid_policy"


class NotAdmittedError(IngleError):
    """A model that the policy in force does not admit."""

    code = "not_admitted"


class SigningError(IngleError):
    """A key or a signature that cannot be made, read or used."""

    code = "signing_failed"


class QueueFullError(IngleError):
    """The server already holds as many waiting requests as it is willing to queue."""

    code = "queue_full"


class PullError(IngleError):
    """A download that was refused or failed; what had come by then stays for the next try."""

    code = "pull_failed"


class MissingExtraError(PullError):
    """The optional dependency that holds the network code is not installed."""

    code = "missing_extra"


class RepositoryNotFoundError(PullError):
    """The hub knows no such repository, or no such revision of it."""

    code = "repository_not_found"


class AccessDeniedError(PullError):
    """The repository is gated or private, or the token is wrong."""

    code = "access_denied"


class NetworkError(PullError):
    """The hub could not be reached, or the connection was lost too often."""

    code = "network_error"


class DiskFullError(PullError):
    """The files do not fit on the disk of the cache."""

    code = "disk_full"


class DigestError(PullError):
    """A file is not what the hub says it is; it has been deleted."""

    code = "digest_mismatch"
