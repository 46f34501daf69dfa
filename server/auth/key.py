"""A key: who may use the server, and how much. The server knows its digest, never the key."""

import hashlib
import re
import secrets
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = "tl-"  # so that scanners for leaked secrets can know one when they see it
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """Zero is no limit."""

    name: str
    digest: bytes
    requests_per_minute: int = 0
    tokens_per_minute: int = 0  # of prompts and answers together
    max_concurrent: int = 0
    # The most urgent one its requests may have, and do have that ask for none where 0 is too urgent; lower is sooner.
    max_priority: int | None = None  # None: any
    admin: bool = False
    isolate_prefixes: bool = False

    @property
    def has_limits(self) -> bool:
        """Whether something has to be counted."""
        return bool(self.requests_per_minute or self.tokens_per_minute or self.max_concurrent)

    def salted(self, salt: str) -> str:
        """The prefix cache's salt: nobody without this key can name it, so nobody can time its contents."""
        return f"{self.name}:{self.digest.hex()}:{salt}" if self.isolate_prefixes else salt


def new_key() -> str:
    """256 random bits, in letters that need no quoting."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest_of(key: bytes) -> bytes:
    """SHA-256, plain and fast: in 256 random bits there is nothing to guess that a slow hash would protect."""
    return hashlib.sha256(key).digest()
