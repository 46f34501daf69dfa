"""What an encoder's files say."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.checkpoint import Checkpoint, CheckpointError, Projection, Sentence, open_checkpoint
from tests.engine.encoder_files import BERT, CLASSIFIER, DENSE, IDENTITY, MODERN, MODULES, ROBERTA, open_files

SOFTMAX = "torch.nn.modules.activation.Softmax"


def _sentence(path: Path, pooling: dict[str, object], modules: list[dict[str, str]] = MODULES) -> Checkpoint:
    files = {"modules.json": modules, "1_Pooling/config.json": pooling, "2_Dense/config.json": DENSE}
    return open_files(path, BERT, files)


def test_a_base_model_embeds_by_the_mean(tmp_path: Path) -> None:
    checkpoint = open_files(tmp_path, BERT)
    assert checkpoint.task == "embed"
    assert checkpoint.encoder.sentence == Sentence(("mean",))
    assert (checkpoint.encoder.dim, checkpoint.encoder.max_len) == (32, 64)


def test_a_family_by_model_type_alone(tmp_path: Path) -> None:
    config = {key: value for key, value in BERT.items() if key != "architectures"}
    assert open_files(tmp_path, config).encoder.architecture == "BertModel"


@pytest.mark.parametrize(
    ("suffix", "task"),
    [
        ("ForSequenceClassification", "classify"),
        ("ForTokenClassification", "token_classify"),
        ("ForMaskedLM", "fill_mask"),
    ],
)
def test_the_head_says_the_task(tmp_path: Path, suffix: str, task: str) -> None:
    special = {"special_tokens_map.json": {"mask_token": {"content": "<m>"}}}
    (tmp_path / "vocab.txt").write_text("a\n<m>\nb\n")
    checkpoint = open_files(tmp_path, BERT | {"architectures": ["Bert" + suffix]}, special)
    assert checkpoint.task == task
    assert checkpoint.special.mask_token == "<m>"
    assert checkpoint.encoder.mask_id == (1 if task == "fill_mask" else None)


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"added_tokens": [{"id": 3, "content": "<s>"}, {"id": 7, "content": "<m>"}]},
        {"model": {"vocab": {"<m>": 7}}},
    ],
)
def test_the_mask_is_found_in_the_tokenizer(tmp_path: Path, tokenizer: dict[str, object]) -> None:
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": {"mask_token": "<m>"}}
    assert open_files(tmp_path, BERT | {"architectures": ["BertForMaskedLM"]}, files).encoder.mask_id == 7


def test_the_usual_mask_where_no_file_names_it(tmp_path: Path) -> None:
    tokenizer = {"added_tokens": [{"id": 7, "content": "<mask>"}, {"id": 8, "content": "[MASK]"}]}
    config = ROBERTA | {"architectures": ["RobertaForMaskedLM"]}
    checkpoint = open_files(tmp_path, config, {"tokenizer.json": tokenizer})
    assert (checkpoint.special.mask_token, checkpoint.encoder.mask_id) == ("<mask>", 7)
    bert = BERT | {"architectures": ["BertForMaskedLM"]}
    assert open_files(tmp_path, bert, {"tokenizer.json": tokenizer}).encoder.mask_id == 8


def test_a_decoder_is_no_encoder_and_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"BertModel generates no text \(it does embed\)"):
        _ = open_files(tmp_path, BERT).decoder
    with pytest.raises(CheckpointError, match="LlamaForCausalLM is no encoder"):
        _ = open_checkpoint("").encoder


def test_modules_behind_the_last_layer(tmp_path: Path) -> None:
    checkpoint = _sentence(tmp_path, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    projection = Projection("2_Dense", 32, 8, False, "identity")
    assert checkpoint.encoder.sentence == Sentence(("cls",), (projection,), normalize=True)
    assert checkpoint.encoder.dim == 8


def test_how_vectors_are_kept_and_compared(tmp_path: Path) -> None:
    own = {"config_sentence_transformers.json": {"truncate_dim": 20, "similarity_fn_name": "dot"}}
    files = {"modules.json": MODULES[:2], "1_Pooling/config.json": {}, **own}
    config = open_files(tmp_path, BERT, files).encoder
    assert (config.sentence, config.dim) == (Sentence(("mean",), num_kept=20), 20)
    assert config.similarity == "dot"


@pytest.mark.parametrize(
    ("pooling", "kinds"),
    [
        ({}, ("mean",)),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["max", "cls"]}, ("max", "cls")),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_weightedmean_tokens": True}, ("weightedmean",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len_tokens",)),
    ],
)
def test_kinds_of_pooling(tmp_path: Path, pooling: dict[str, object], kinds: tuple[str, ...]) -> None:
    checkpoint = _sentence(tmp_path, pooling, MODULES[:2])
    assert checkpoint.encoder.sentence == Sentence(kinds)  # type: ignore[arg-type]
    assert checkpoint.encoder.dim == 32 * len(kinds)


def test_modules_pool_whatever_head_the_file_names(tmp_path: Path) -> None:
    config = ROBERTA | {"architectures": ["RobertaForMaskedLM"]}
    files: dict[str, object] = {"modules.json": MODULES[:2], "1_Pooling/config.json": {}}
    assert open_files(tmp_path, config, files).task == "embed"


def test_a_cross_encoder_saved_with_modules(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "modules.json": MODULES[:1],
        "config_sentence_transformers.json": {"activation_fn": IDENTITY},
    }
    checkpoint = open_files(tmp_path, CLASSIFIER, files)
    assert (checkpoint.task, checkpoint.encoder.activation) == ("classify", "identity")


@pytest.mark.parametrize(
    ("files", "max_len"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 20}}, 20),
        ({"sentence_bert_config.json": {"max_seq_length": 2000}}, 64),
        ({"sentence_roberta_config.json": {"max_seq_length": None}}, 64),
        ({"tokenizer_config.json": {"model_max_length": 30}}, 64),
        ({"tokenizer_config.json": {"model_max_length": 30}, "modules.json": MODULES[:2]}, 30),
        ({"tokenizer_config.json": {"model_max_length": 10**30}, "modules.json": MODULES[:2]}, 64),
    ],
)
def test_the_longest_input(tmp_path: Path, files: dict[str, object], max_len: int) -> None:
    assert open_files(tmp_path, BERT, files | {"1_Pooling/config.json": {}}).encoder.max_len == max_len


def test_positions_that_begin_beyond_padding(tmp_path: Path) -> None:
    config = open_files(tmp_path, ROBERTA).encoder
    assert (config.first_position, config.max_len) == (2, 62)
    config = open_files(tmp_path, ROBERTA | {"pad_token_id": 5}).encoder
    assert (config.first_position, config.max_len) == (6, 58)


@pytest.mark.parametrize(
    ("changes", "labels", "activation"),
    [
        ({}, ("LABEL_0", "LABEL_1"), "softmax"),
        ({"id2label": {"1": "no", "0": "yes"}}, ("yes", "no"), "softmax"),
        ({"num_labels": 1}, ("LABEL_0",), "sigmoid"),
        ({"num_labels": 1, "problem_type": "regression"}, ("LABEL_0",), "identity"),
        ({"problem_type": "multi_label_classification"}, ("LABEL_0", "LABEL_1"), "sigmoid"),
        ({"problem_type": "single_label_classification"}, ("LABEL_0", "LABEL_1"), "softmax"),
        ({"num_labels": 1, "sbert_ce_default_activation_function": IDENTITY}, ("LABEL_0",), "identity"),
        (
            {"problem_type": "multi_label_classification", "sbert_ce_default_activation_function": SOFTMAX},
            ("LABEL_0", "LABEL_1"),
            "softmax",
        ),
        (
            {
                "num_labels": 1,
                "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
            },
            ("LABEL_0",),
            "sigmoid",
        ),
    ],
)
def test_labels_and_what_makes_scores(
    tmp_path: Path, changes: dict[str, object], labels: tuple[str, ...], activation: str
) -> None:
    config = open_files(tmp_path, CLASSIFIER | changes).encoder
    assert (config.labels, config.activation) == (labels, activation)


def test_prompts_and_vectors_that_may_be_cut(tmp_path: Path) -> None:
    own = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    changes = {"matryoshka_dimensions": [16, 8]}
    config = open_files(tmp_path, BERT | changes, {"config_sentence_transformers.json": own}).encoder
    assert (config.prompts, config.default_prompt_name) == ({"query": "query: ", "document": ""}, "query")
    assert (config.matryoshka, config.matryoshka_dims) == (True, (8, 16))


def test_layers_of_modernbert(tmp_path: Path) -> None:
    modern = open_files(tmp_path, MODERN | {"num_hidden_layers": 5}).encoder.modern
    assert modern is not None
    assert modern.windowed == (False, True, True, False, True)
    assert (modern.window, modern.theta, modern.windowed_theta) == (128, 160000.0, 10000.0)
    named = MODERN | {"layer_types": ["sliding_attention", "full_attention"], "local_rope_theta": 500.0}
    modern = open_files(tmp_path, named).encoder.modern
    assert modern is not None
    assert (modern.windowed, modern.windowed_theta) == ((True, False), 500.0)


def test_opening_an_encoder_imports_no_array_library(tmp_path: Path) -> None:
    _sentence(tmp_path, {})
    script = (
        "import sys\nfrom engine.checkpoint import open_checkpoint\n"
        f"open_checkpoint({str(tmp_path)!r}).encoder\n"
        "print(sorted({'torch', 'numpy', 'safetensors', 'transformers'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
