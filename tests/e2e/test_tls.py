"""Certificates that are renewed while a server runs."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from server.process.certificate import Certificate
from tests.e2e.deployment import start_scripted, wait_until


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """One that vouches for itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "1", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def trusting(*certs: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for cert in certs:
        context.load_verify_locations(cert)
    return context


def shown(url: str, context: ssl.SSLContext) -> str:
    """The certificate that a new client gets, as PEM."""
    place = urlsplit(url)
    assert place.hostname is not None and place.port is not None
    with (
        socket.create_connection((place.hostname, place.port), 5) as plain,
        context.wrap_socket(plain, server_hostname=place.hostname) as sock,
    ):
        found = sock.getpeercert(binary_form=True)
    assert found is not None
    return ssl.DER_cert_to_PEM_cert(found)


@contextmanager
def streaming(client: httpx.Client) -> Iterator[Iterator[str]]:
    body = {"prompt": [1, 2, 3], "max_tokens": 150, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body, timeout=30) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        yield lines


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    """By every server process; a stream that began before goes on."""
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(first[0].read_bytes())
    key.write_bytes(first[1].read_bytes())
    context = trusting(first[0], second[0])
    place = tmp_path / "place"
    place.mkdir()
    server = start_scripted(place, 0.02, tls_cert=str(cert), tls_key=str(key), api_workers=2)
    try:
        url = server.url
        assert url.startswith("https://127.0.0.1:")
        assert shown(url, context) == first[0].read_text()
        with httpx.Client(base_url=url, verify=context) as client, streaming(client) as lines:
            cert.write_bytes(second[0].read_bytes())  # the key is still the old one's
            wait_until(lambda: "the certificate stays as it was" in server.output)
            assert shown(url, context) == first[0].read_text()
            renewed = tmp_path / "renewed"
            renewed.write_bytes(second[1].read_bytes())
            renewed.replace(key)
            wait_until(lambda: {shown(url, context) for _ in range(12)} == {second[0].read_text()})
            assert list(lines)[-2] == "data: [DONE]"
            assert client.get("/health").status_code == 200
        server.process.terminate()
        assert server.wait() == 0
    finally:
        server.close()


def test_files_that_cannot_be_used_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = make_certificate(tmp_path, "good")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = Certificate(context, str(cert), str(key))
    certificate.refresh()
    assert not caplog.records
    cert.write_text("no certificate")
    certificate.refresh()
    certificate.refresh()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "said once for each change"
    key.unlink()
    certificate.refresh()
    assert len(caplog.records) == 1
