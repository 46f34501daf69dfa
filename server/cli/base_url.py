"""Where a server is, as people write it."""


def base_url(text: str) -> str:
    """`localhost:8000`, and the URL that OpenAI's clients are given, mean http://localhost:8000."""
    url = text if "://" in text else f"http://{text}"
    return url.rstrip("/").removesuffix("/v1")
