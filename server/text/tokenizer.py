"""Text to token ids and back."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import tokenizers

from engine.checkpoint import SpecialTokens
from server.text.errors import TextError, TokenizerFault
from server.text.pieces import Pieces, pieces_of


class Tokenizer:
    """Special tokens written out in a text are read as the tokens they name, in prompts of every kind.

    `vocab_size` is the model's: ids below it for which the tokenizer has no piece stand for no text, and what the tokenizer
    has beyond it cannot be read, for the model has no row for it.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special: SpecialTokens,
        vocab_size: int = 0,
        pieces: Pieces | None = None,
    ) -> None:
        """Without `pieces` the decoder says what bytes a token stands for.

        Raises ModelTextError when tokens of this kind of tokenizer have no bytes of their own.
        """
        backend.no_truncation()
        backend.no_padding()
        pieces = pieces or pieces_of(backend.decoder)
        self.special = special
        self.vocab_size = vocab_size or backend.get_vocab_size(with_added_tokens=True)
        self.special_ids = frozenset(
            i for i, token in backend.get_added_tokens_decoder().items() if token.special
        )
        self.num_leading_spaces = pieces.num_leading_spaces  # dropped, so many at most, where a text begins
        self._backend = backend
        self._to_bytes = pieces.to_bytes
        self._known_bytes: list[bytes | None] = [None] * self.vocab_size  # filled as tokens are met
        around_nothing = self.encode("")
        self.adds_bos = special.bos_id is not None and around_nothing[:1] == [special.bos_id]

    @property
    def first_id(self) -> int | None:
        """The token that every text begins with, if there is one."""
        return self.special.bos_id if self.adds_bos else None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. Other threads run meanwhile.

        Raises TextError for lone surrogates and for tokens that the model does not have, and TokenizerFault.
        """
        check_unicode(text)
        # Of the library's calls only those for a batch let other threads run; "fast" leaves out the offsets.
        with library_faults():
            ids = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        if ids and max(ids) >= self.vocab_size:
            raise TextError(f"token {max(ids)} is unknown to the model, which has {self.vocab_size}")
        return ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD. Raises TextError for an unknown id."""
        hidden = self.special_ids if skip_special_tokens else frozenset[int]()
        data = b"".join([self.token_bytes(i) for i in ids if i not in hidden])
        return self.without_leading_spaces(data.decode(errors="replace"))

    def without_leading_spaces(self, text: str) -> str:
        """A whole text as it should read: SentencePiece puts a space before the first word."""
        count = self.num_leading_spaces
        return text[:count].lstrip(" ") + text[count:] if count else text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for. Raises TextError for an id out of the vocabulary."""
        self.check_id(token_id)
        known = self._known_bytes[token_id]
        if known is None:
            piece = self._backend.id_to_token(token_id)
            known = self._known_bytes[token_id] = b"" if piece is None else self._to_bytes(piece)
        return known

    def token_text(self, token_id: int) -> str:
        """One token as text; U+FFFD where it holds but a part of a character."""
        return self.token_bytes(token_id).decode(errors="replace")

    def token_label(self, token_id: int) -> str:
        """One token as a text of its own; where it is no UTF-8, `bytes:\\xe2\\x80` (OpenAI's notation)."""
        data = self.token_bytes(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def token_piece(self, token_id: int) -> str:
        """A token as the vocabulary spells it (`Ġthe`); empty where it has no such token."""
        self.check_id(token_id)
        return self._backend.id_to_token(token_id) or ""

    def token_id(self, piece: str) -> int | None:
        """The id of a token as the vocabulary spells it, special ones included."""
        return self._backend.token_to_id(piece)

    def check_id(self, token_id: int, field: str | None = None) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise TextError(
                f"{field or 'token id'}: {token_id} is unknown; accepted: 0 to {self.vocab_size - 1}",
                field=field,
            )

    def check_ids(self, token_ids: Sequence[int], field: str) -> None:
        """Raises TextError naming the first id that is out of the vocabulary."""
        if token_ids and (min(token_ids) < 0 or max(token_ids) >= self.vocab_size):
            for token_id in token_ids:
                self.check_id(token_id, field)


def is_panic(error: BaseException) -> bool:
    """Whether the library came to a place that it thought out of reach. Such an error is no Exception."""
    return type(error).__module__ == "pyo3_runtime"


@contextmanager
def library_faults() -> Iterator[None]:
    """Raises TokenizerFault where the library gives up or panics."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and not is_panic(error):  # its own are of no narrower class
            raise
        # Its words may hold the text, which is not for the log.
        raise TokenizerFault("the tokenizers library failed on a text") from None


def check_unicode(text: str) -> None:
    """Raises TextError for lone surrogates, which the library cannot take."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text has a lone surrogate, {text[error.start]!r}, at character {error.start};"
            " accepted: valid Unicode"
        ) from error
