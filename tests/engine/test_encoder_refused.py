"""What is refused of an encoder's files: each by its key, its value, and what is accepted."""

from pathlib import Path
from typing import Any

import pytest

from engine.checkpoint import CheckpointError
from tests.engine.encoder_files import (
    ALBERT,
    BERT,
    CLASSIFIER,
    DEBERTA,
    DENSE,
    DISTIL,
    KIND,
    MODERN,
    MODULES,
    ROBERTA,
    open_files,
)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (BERT | {"architectures": ["BertForQuestionAnswering"]}, "architectures"),
        (BERT | {"architectures": ["BertweetModel"]}, "architectures"),
        (BERT | {"architectures": None, "model_type": "mpnet"}, "architectures"),
        (BERT | {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        (BERT | {"is_decoder": True}, "is_decoder"),
        (BERT | {"add_cross_attention": True}, "add_cross_attention"),
        (BERT | {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        (BERT | {"quantization_config": {"bits": 8}}, "quantization_config"),
        (BERT | {"hidden_act": "silu"}, "hidden_act"),
        (BERT | {"num_attention_heads": 5}, "num_attention_heads"),
        (BERT | {"num_hidden_layers": 5000}, "num_hidden_layers"),
        (BERT | {"type_vocab_size": -1}, "type_vocab_size"),
        (BERT | {"hidden_size": None}, "hidden_size"),
        (BERT | {"matryoshka_dimensions": "all"}, "matryoshka_dimensions"),
        (ROBERTA | {"pad_token_id": 63}, "max_position_embeddings"),
        (CLASSIFIER | {"id2label": {"1": "no", "2": "yes"}}, "id2label"),
        (CLASSIFIER | {"problem_type": "ordinal"}, "problem_type"),
        (
            CLASSIFIER | {"sbert_ce_default_activation_function": "my.Function"},
            "sbert_ce_default_activation_function",
        ),
        (ALBERT | {"num_hidden_groups": 3}, "num_hidden_groups"),
        (DISTIL | {"activation": "swish"}, "activation"),
        (DEBERTA | {"conv_kernel_size": 3}, "conv_kernel_size"),
        (DEBERTA | {"pos_att_type": "c2p|p2p"}, "pos_att_type"),
        (DEBERTA | {"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd"),
        (DEBERTA | {"position_buckets": 126}, "position_buckets"),
        (DEBERTA | {"attention_head_size": 16}, "attention_head_size"),
        (DEBERTA | {"embedding_size": 16}, "embedding_size"),
        (MODERN | {"hidden_activation": "gelu_new"}, "hidden_activation"),
        (MODERN | {"layer_types": ["full_attention"]}, "layer_types"),
        (MODERN | {"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        (MODERN | {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type"),
        (MODERN | {"classifier_pooling": "max"}, "classifier_pooling"),
    ],
)
def test_refused_by_key(tmp_path: Path, config: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: \S*{key} is "):
        open_files(tmp_path, config)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": {}}, "modules.json: accepted is a list"),
        ({"modules.json": MODULES[1:2]}, "accepted: Transformer, then Pooling"),
        ({"modules.json": [*MODULES[:2], MODULES[1]]}, "accepted: Transformer, then Pooling"),
        ({"modules.json": [MODULES[0], MODULES[3], MODULES[1]]}, "accepted: Transformer, then Pooling"),
        ({"modules.json": MODULES[:1]}, "no Pooling"),
        ({"modules.json": [{"type": KIND + "Transformer", "path": "0_Bert"}, MODULES[1]]}, "'0_Bert'"),
        (
            {"modules.json": [MODULES[0], {"type": KIND + "WordWeights", "path": "1"}]},
            "1.type is .*WordWeights",
        ),
        ({"modules.json": [MODULES[0], {"type": "evil.Pooling", "path": "1"}]}, "1.type is 'evil.Pooling'"),
        ({"modules.json": [MODULES[0], {"type": KIND + "Pooling", "path": "../x"}]}, r"1.path is '\.\./x'"),
        ({"1_Pooling/config.json": {"pooling_mode": "median"}}, "pooling_mode is 'median'"),
        ({"1_Pooling/config.json": {"include_prompt": False}}, "include_prompt is False"),
        ({"2_Dense/config.json": DENSE | {"in_features": 31}}, "in_features is 31; accepted: 32"),
        (
            {"2_Dense/config.json": DENSE | {"activation_function": "my.Act"}},
            "activation_function is 'my.Act'",
        ),
        ({"2_Dense/config.json": DENSE | {"use_residual": True}}, "use_residual is True"),
        ({"sentence_bert_config.json": {"do_lower_case": True}}, "do_lower_case is True"),
        (
            {"sentence_bert_config.json": {"modality_config": {"text": {"method_output_name": "pooler"}}}},
            "modality_config.text.method_output_name is 'pooler'",
        ),
        ({"config_sentence_transformers.json": {"default_prompt_name": "q"}}, "default_prompt_name is 'q'"),
        ({"config_sentence_transformers.json": {"similarity_fn_name": "l2"}}, "similarity_fn_name is 'l2'"),
        ({"config_sentence_transformers.json": {"truncate_dim": 0}}, "truncate_dim is 0"),
    ],
)
def test_refused_beside_the_configuration(tmp_path: Path, files: dict[str, object], message: str) -> None:
    whole: dict[str, object] = {
        "modules.json": MODULES,
        "1_Pooling/config.json": {},
        "2_Dense/config.json": DENSE,
    }
    with pytest.raises(CheckpointError, match=message):
        open_files(tmp_path, BERT, whole | files)


def test_a_classifier_puts_nothing_before_texts(tmp_path: Path) -> None:
    files = {"config_sentence_transformers.json": {"prompts": {"q": "q: "}, "default_prompt_name": "q"}}
    with pytest.raises(CheckpointError, match="default_prompt_name is 'q'; accepted: None"):
        open_files(tmp_path, CLASSIFIER, files)


def test_a_filler_of_masks_without_a_mask(tmp_path: Path) -> None:
    config = BERT | {"architectures": ["BertForMaskedLM"]}
    with pytest.raises(
        CheckpointError, match=r"the mask token '\[MASK\]' has no id in tokenizer.json or vocab.txt"
    ):
        open_files(tmp_path, config)
    with pytest.raises(CheckpointError, match="the mask token '<m>' has no id"):
        open_files(tmp_path, config, {"tokenizer_config.json": {"mask_token": "<m>"}})
    with pytest.raises(CheckpointError, match="vocab_size is 50; accepted: above the mask token's id, 50"):
        open_files(tmp_path, config | {"mask_token_id": 50})
