"""Who may come in, and the calls of those who did."""

import hmac
from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from server.auth.call import Call
from server.auth.hosts import Hosts
from server.auth.key import Key, digest_of
from server.auth.ledger import Ledger
from server.auth.refusal import not_admin, unauthorized
from server.errors import ApiError, http_fault

OPEN = frozenset(("/health", "/health/live", "/health/ready"))
ADMIN = "/admin/"


class Access:
    """Without keys everyone may use everything but the administrator's routes, which do not exist then.

    `hosts` are the names that it may be called by then; None: any.
    """

    def __init__(
        self, keys: Iterable[Key] = (), ledger: Ledger | None = None, hosts: Hosts | None = None
    ) -> None:
        self._ledger = ledger
        self._hosts = hosts
        self._keys: tuple[Key, ...] = ()
        self.calls: set[Call] = set()  # those that run
        self.use(keys)

    def use(self, keys: Iterable[Key]) -> None:
        """From now on these keys. Calls that run go on."""
        self._keys = tuple(keys)
        if self._ledger is not None:
            self._ledger.open(self._keys)

    def enter(self, scope: Scope, state: MutableMapping[str, Any]) -> Call:
        """A request begins; the caller calls `leave`. Raises ApiError (401, 403, 404, 429)."""
        path = str(scope["path"])
        key = None if path in OPEN else self._authenticate(Headers(scope=scope))
        is_admin = path.startswith(ADMIN)
        if is_admin:
            self._check_admin(key, scope)
        is_counted = scope["method"] == "POST" and not is_admin
        call = Call(key, self._ledger if is_counted else None, state)
        call.enter()
        self.calls.add(call)
        return call

    def leave(self, call: Call) -> None:
        """May be called again."""
        self.calls.discard(call)
        call.close()

    def end(self, request_id: str, error: ApiError) -> int:
        """Ends the calls with that id; how many there were."""
        ended = [call for call in self.calls if call.request_id == request_id and call.part is not None]
        for call in ended:
            if call.part is not None:
                call.part.end(error)
        return len(ended)

    def _authenticate(self, headers: Headers) -> Key | None:
        if not self._keys:
            if self._hosts is not None:
                self._hosts.check(headers.get("host", ""))
            return None
        presented = _presented(headers)
        key = None if presented is None else self._find(digest_of(presented))
        if key is None:
            raise unauthorized(presented is not None)
        return key

    def _find(self, digest: bytes) -> Key | None:
        """Every key is compared in full, so that the time tells nothing of any."""
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _check_admin(self, key: Key | None, scope: Scope) -> None:
        if not any(known.admin for known in self._keys):
            raise http_fault(404, f"{scope['method']} {scope['path']}: Not Found")
        if key is None or not key.admin:
            raise not_admin(scope["path"])


def _presented(headers: Headers) -> bytes | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    given = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return given.encode("latin-1") if given else None
