"""The flags of `tokenloom serve` about who may come in, and what hostile clients cannot do."""

from typing import Annotated

import typer

from server.cli.flags import byte_count

_ACCESS = "Access and hostile clients"
API_KEY, ADMIN_KEY = "TOKENLOOM_API_KEY", "TOKENLOOM_ADMIN_KEY"  # in the environment

ApiKey = Annotated[
    str,
    typer.Option(
        help="The key that clients have to send; better in the environment than where ps shows it.",
        metavar="KEY",
        envvar=API_KEY,
        rich_help_panel=_ACCESS,
    ),
]
KeyFile = Annotated[
    str,
    typer.Option(
        help="Several keys with limits each: TOML, entries as `tokenloom key new NAME` prints them.",
        metavar="FILE",
        rich_help_panel=_ACCESS,
    ),
]
AdminKey = Annotated[
    str,
    typer.Option(
        help="The key for /admin/*, which is not there without one.",
        metavar="KEY",
        envvar=ADMIN_KEY,
        rich_help_panel=_ACCESS,
    ),
]
TlsCert = Annotated[
    str,
    typer.Option(help="A PEM file: serve HTTPS.", metavar="FILE", rich_help_panel=_ACCESS),
]
TlsKey = Annotated[
    str,
    typer.Option(help="The certificate's key, not encrypted.", metavar="FILE", rich_help_panel=_ACCESS),
]
CorsOrigin = Annotated[
    str,
    typer.Option(
        help="Pages from these origins may call it, separated by commas. Example: https://chat.example",
        metavar="ORIGINS",
        rich_help_panel=_ACCESS,
    ),
]
AllowedHosts = Annotated[
    str,
    typer.Option(
        help="Names, separated by commas, by which it may be called without keys, beside addresses, localhost and names "
        "of private networks; * is any name. Example: llm.example",
        metavar="NAMES",
        rich_help_panel=_ACCESS,
    ),
]
MaxConnections = Annotated[
    int,
    typer.Option(
        help="Of one server process; more get a 503.", metavar="CONNECTIONS", rich_help_panel=_ACCESS
    ),
]
MaxHeaderBytes = Annotated[
    int,
    typer.Option(
        parser=byte_count,
        help="Of a request's line and headers; more get a 431.",
        metavar="BYTES",
        rich_help_panel=_ACCESS,
    ),
]
MaxHeaders = Annotated[
    int,
    typer.Option(help="Of one request; more get a 431.", metavar="HEADERS", rich_help_panel=_ACCESS),
]
HeaderSeconds = Annotated[
    float,
    typer.Option(
        help="For a request's head, or a TLS handshake, to arrive.",
        metavar="SECONDS",
        rich_help_panel=_ACCESS,
    ),
]
BodySeconds = Annotated[
    float,
    typer.Option(help="For a request's body to arrive.", metavar="SECONDS", rich_help_panel=_ACCESS),
]
StallSeconds = Annotated[
    float,
    typer.Option(
        help="A client that does not read its answer for so long is dropped.",
        metavar="SECONDS",
        rich_help_panel=_ACCESS,
    ),
]
