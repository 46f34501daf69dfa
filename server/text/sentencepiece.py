"""A SentencePiece BPE tokenizer from a GGUF vocabulary (model "llama")."""

from tokenizers import Tokenizer, decoders, models, normalizers
from tokenizers.decoders import Decoder
from tokenizers.normalizers import Normalizer

from engine.checkpoint import GgufVocabulary
from server.text.errors import ModelTextError
from server.text.pieces import SPACE_MARK

_NORMAL, _USER_DEFINED = 1, 4  # types of tokens that are made by joining others
_MAX_PIECE = 512  # characters; every place where a piece may be split is looked at


def build_sentencepiece(vocabulary: GgufVocabulary, unk_id: int | None) -> Tokenizer:
    """SentencePiece joins the neighbours that make the best scored piece. As merges: all splits, best first.

    Raises ModelTextError when a piece has no score.
    """
    tokens = vocabulary.tokens
    longest = max(map(len, tokens), default=0)
    if longest > _MAX_PIECE:
        raise ModelTextError(
            f"tokenizer.ggml.tokens has a token of {longest} characters; accepted: up to {_MAX_PIECE}"
        )
    if len(vocabulary.scores) != len(tokens):
        raise ModelTextError(
            f"tokenizer.ggml.scores has {len(vocabulary.scores)} entries;"
            f" accepted: one for each of {len(tokens)} tokens"
        )
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=_merges(vocabulary),
        byte_fallback=True,
        fuse_unk=True,
        unk_token=None if unk_id is None else tokens[unk_id],
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(vocabulary.add_space_prefix)
    tokenizer.decoder = _decoder(vocabulary.add_space_prefix)
    return tokenizer


def _merges(vocabulary: GgufVocabulary) -> list[tuple[str, str]]:
    entries = zip(vocabulary.tokens, vocabulary.token_types, vocabulary.scores, strict=True)
    scores = {token: score for token, kind, score in entries if kind in (_NORMAL, _USER_DEFINED)}
    pairs = [
        (-score, (piece[:i], piece[i:]))
        for piece, score in scores.items()
        for i in range(1, len(piece))
        if piece[:i] in scores and piece[i:] in scores
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [pair for _, pair in pairs]


def _normalizer(add_space_prefix: bool) -> Normalizer:
    mark_spaces = normalizers.Replace(" ", SPACE_MARK)
    return (
        normalizers.Sequence([normalizers.Prepend(SPACE_MARK), mark_spaces])
        if add_space_prefix
        else mark_spaces
    )


def _decoder(add_space_prefix: bool) -> Decoder:
    steps = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if add_space_prefix else steps)
