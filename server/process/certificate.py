"""The certificate that TLS clients are shown: read again when its files change, so that a renewal needs no restart."""

import asyncio
import logging
import ssl
from pathlib import Path

RENEW_SECONDS = 1.0  # between two looks at the files

LOG = logging.getLogger("tokenloom.server")

Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """Of one context. Connections that are open keep the certificate that they began with."""

    def __init__(self, context: ssl.SSLContext, cert: str, key: str) -> None:
        self._context = context
        self._cert, self._key = Path(cert), Path(key)
        self._seen: Stamp | None = None

    def refresh(self) -> None:
        """Files that cannot be used leave things as they are: a renewal writes one after the other."""
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            load(
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._cert, self._key
            )  # a failure would leave half of it
            load(self._context, self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            LOG.warning("the certificate stays as it was: %s", error)

    def _stamp(self) -> Stamp | None:
        """None while one of the files is not there."""
        try:
            found = [path.stat() for path in (self._cert, self._key)]
        except OSError:
            return None
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)


def load(context: ssl.SSLContext, cert: str | Path, key: str | Path) -> None:
    """Raises OSError or SSLError; a key that wants a password is refused, not asked for."""
    context.load_cert_chain(cert, key, password="")


async def keep_fresh(certificate: Certificate) -> None:
    while True:
        certificate.refresh()
        await asyncio.sleep(RENEW_SECONDS)
