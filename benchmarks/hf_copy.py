"""A Hugging Face folder made of a GGUF file, in float32, for servers that read nothing else."""

from pathlib import Path

NEVER_ENDS = 16  # an id that is never generated in practice: for servers that know no `ignore_eos`


def make_folder(gguf: Path, folder: Path) -> None:
    """Write config, weights and tokenizer. The end-of-sequence token is one that does not come."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from engine.checkpoint import open_checkpoint
    from engine.models import find_model
    from engine.weights import open_weights

    checkpoint = open_checkpoint(str(gguf))
    layout = find_model(checkpoint.decoder.architecture).layout(checkpoint.decoder)
    weights = open_weights(checkpoint, layout, torch.float32)
    parts = [(name, weights.take(name)) for name in layout.shapes]
    config = AutoConfig.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    config.eos_token_id = NEVER_ENDS
    copy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    copy.load_state_dict(dict(parts), strict=not config.tie_word_embeddings)
    copy.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)
