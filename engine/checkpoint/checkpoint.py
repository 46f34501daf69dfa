"""An opened model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.checkpoint.config import ModelConfig
from engine.checkpoint.encoder import EncoderConfig
from engine.checkpoint.error import CheckpointError
from engine.checkpoint.gguf import GgufFile
from engine.checkpoint.tokenizer import GgufTokenizer, TokenizerFile
from engine.request import SamplingParams, Task


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids and texts as the files give them; a file may give only one of the two."""

    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()  # any of them ends a request
    unk_id: int | None = None
    pad_id: int | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    mask_token: str | None = None
    add_bos: bool | None = None  # None: the tokenizer itself knows
    add_eos: bool | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's metadata, and where its tensors lie."""

    name: str  # what /v1/models calls it
    path: Path  # the .gguf file or the folder
    config: ModelConfig | EncoderConfig
    tokenizer: TokenizerFile | GgufTokenizer | None  # None: a folder without tokenizer.json
    special: SpecialTokens
    chat_templates: Mapping[str, str] = field(default_factory=dict)  # by name: default, and perhaps tool_use
    gguf: GgufFile | None = None  # None: the path is a folder
    sampling: SamplingParams = SamplingParams()  # for requests that do not say how tokens are picked

    @property
    def chat_template(self) -> str | None:
        return self.chat_templates.get("default")

    @property
    def task(self) -> Task:
        return self.config.task if isinstance(self.config, EncoderConfig) else "generate"

    @property
    def decoder(self) -> ModelConfig:
        """The configuration. Errors: CheckpointError for an encoder."""
        if isinstance(self.config, EncoderConfig):
            raise CheckpointError(
                f"{self.path}: {self.config.architecture} generates no text (it does {self.task})"
            )
        return self.config

    @property
    def encoder(self) -> EncoderConfig:
        """The configuration. Errors: CheckpointError for a decoder."""
        if isinstance(self.config, ModelConfig):
            raise CheckpointError(
                f"{self.path}: {self.config.architecture} is no encoder (it generates text)"
            )
        return self.config
