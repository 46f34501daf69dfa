"""GGUF files put together byte by byte, so that they may lie. The format: github.com/ggml-org/ggml, docs/gguf.md."""

import struct
from dataclasses import dataclass, field, replace

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10
Fields = dict[bytes, bytes]  # what follows a key: its type and its value


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: bytes, size: int | None = None) -> bytes:
    return u64(len(text) if size is None else size) + text


def number(value: int) -> bytes:
    return u32(U32) + u32(value)


def real(value: float) -> bytes:
    return u32(F32) + struct.pack("<f", value)


def text(value: bytes) -> bytes:
    return u32(STRING) + string(value)


def strings(values: list[bytes], count: int | None = None) -> bytes:
    head = u32(ARRAY) + u32(STRING) + u64(len(values) if count is None else count)
    return head + b"".join(map(string, values))


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    return u32(ARRAY) + u32(kind) + u64(count) + content


@dataclass(frozen=True, slots=True)
class RawTensor:
    name: bytes
    dims: tuple[int, ...]  # innermost first
    type: int = 0  # F32
    offset: int = 0
    num_dims: int | None = None

    def entry(self) -> bytes:
        count = len(self.dims) if self.num_dims is None else self.num_dims
        return (
            string(self.name) + u32(count) + b"".join(map(u64, self.dims)) + u32(self.type) + u64(self.offset)
        )


FIELDS: Fields = {
    b"general.architecture": text(b"llama"),
    b"llama.block_count": number(1),
    b"llama.context_length": number(256),
    b"llama.embedding_length": number(8),
    b"llama.feed_forward_length": number(16),
    b"llama.attention.head_count": number(2),
    b"llama.attention.layer_norm_rms_epsilon": real(1e-5),
    b"tokenizer.ggml.model": text(b"gpt2"),
    b"tokenizer.ggml.pre": text(b"smollm"),
    b"tokenizer.ggml.tokens": strings([b"a", b"b", b"ab", b"<end>"]),
    b"tokenizer.ggml.token_type": array(U32, 4, b"".join(map(u32, (1, 1, 1, 3)))),
    b"tokenizer.ggml.merges": strings([b"a b"]),
    b"tokenizer.ggml.eos_token_id": number(3),
    b"tokenizer.chat_template": text(b"{{ messages }}"),
}
EMBEDDING = RawTensor(b"token_embd.weight", (8, 4))


@dataclass(frozen=True, slots=True)
class RawGguf:
    """As it is, a small file without a fault; `with_fields` and `replace` put faults in."""

    fields: tuple[tuple[bytes, bytes], ...] = tuple(FIELDS.items())
    tensors: tuple[RawTensor, ...] = (EMBEDDING, RawTensor(b"output_norm.weight", (8,), offset=128))
    num_fields: int | None = None
    num_tensors: int | None = None
    version: int = 3
    data: bytes = field(default=bytes(160))

    def with_fields(self, changes: Fields) -> "RawGguf":
        return replace(self, fields=tuple((dict(self.fields) | changes).items()))

    def header(self) -> bytes:
        num_tensors = len(self.tensors) if self.num_tensors is None else self.num_tensors
        num_fields = len(self.fields) if self.num_fields is None else self.num_fields
        head = b"GGUF" + u32(self.version) + u64(num_tensors) + u64(num_fields)
        fields = b"".join(string(key) + value for key, value in self.fields)
        return head + fields + b"".join(tensor.entry() for tensor in self.tensors)

    def content(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % 32) + self.data
