"""The tokenizer of an encoder: texts and pairs in, with the segment of each token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tokenizers

from engine.checkpoint import SpecialTokens
from server.text.errors import TextError
from server.text.pieces import Pieces
from server.text.tokenizer import Tokenizer, check_unicode, library_faults
from server.text.truncation import Cut, TextInput, encode_cut


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input, as an encoder reads it."""

    token_ids: list[int]
    type_ids: list[int]  # the segment of each token; empty: all 0


class InputTokenizer(Tokenizer):
    """Its texts are read whole and never made token by token, so that any kind of decoder will do."""

    def __init__(self, backend: tokenizers.Tokenizer, special: SpecialTokens, vocab_size: int) -> None:
        super().__init__(backend, special, vocab_size, Pieces(str.encode, 0))
        self.vocab_size = vocab_size  # a token that the model has no row for cannot be read

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text, spaces and all, as the model's own decoder joins it. Raises TextError for an unknown id."""
        token_ids = list(ids)
        for token_id in token_ids:
            self.check_id(token_id)
        return self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def encode_inputs(
        self, texts: Sequence[TextInput], add_special_tokens: bool = True, cut: Cut | None = None
    ) -> list[Encoded]:
        """Each text or pair, in order. Other threads run meanwhile.

        Raises TextError for lone surrogates and for a cut that leaves nothing, and TokenizerFault.
        """
        for text in texts:
            for part in (text,) if isinstance(text, str) else text:
                check_unicode(part)
        with library_faults():
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
            if cut is not None:
                encodings = [
                    self._cut(text, encoding, add_special_tokens, cut)
                    for text, encoding in zip(texts, encodings, strict=True)
                ]
        return [self._read(encoding) for encoding in encodings]

    def _cut(
        self, text: TextInput, encoding: tokenizers.Encoding, add_special_tokens: bool, cut: Cut
    ) -> tokenizers.Encoding:
        if len(encoding) <= cut.max_tokens and cut.max_last is None:
            return encoding
        return encode_cut(self._backend, text, add_special_tokens, cut)

    def _read(self, encoding: tokenizers.Encoding) -> Encoded:
        token_ids, type_ids = encoding.ids, encoding.type_ids
        if token_ids and max(token_ids) >= self.vocab_size:
            raise TextError(f"token {max(token_ids)} is unknown to the model, which has {self.vocab_size}")
        return Encoded(token_ids, type_ids if any(type_ids) else [])
