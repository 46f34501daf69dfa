"""The kernels that an image brings along are those that its first start looks for."""

from pathlib import Path

import pytest

from engine.checkpoint import open_checkpoint
from engine.kernels.gpu import compiler
from engine.kernels.gpu.compiler import Compiled, Compiler, source_dir
from engine.runner.gpu import precompile
from engine.runner.gpu.kernel_set import RecordingLibrary, Sample, Unit, record_decoder
from engine.runner.gpu.precompile import kernels_of, main


def test_a_models_kernels_are_found_where_they_were_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled: list[tuple[str, str]] = []

    def stand_in(source: str, defines: dict[str, int], architecture: str) -> Compiled:
        compiled.append((source, architecture))
        return Compiled(f"{source} {sorted(defines.items())} {architecture}".encode(), "")

    monkeypatch.setattr(compiler, "_compiler_version", lambda: "nvrtc 0.0")
    monkeypatch.setattr(compiler, "compile_source", stand_in)
    monkeypatch.setattr(precompile, "default_cache_dir", lambda: tmp_path)
    main(["sm_80", "sm_90a"])
    units = kernels_of("", ["sm_80", "sm_90a"])
    assert len(units) == len(compiled) == len(list(tmp_path.iterdir())) > 40
    assert f"{len(units)} cubins for sm_80, sm_90a" in capsys.readouterr().out
    for unit in units:
        path = Compiler(unit.architecture, tmp_path).compile(unit.source, dict(unit.defines))
        assert path.read_text() == f"{unit.source} {list(unit.defines)} {unit.architecture}"
    assert len(compiled) == len(units), "nothing is compiled twice"


def test_gpus_of_every_size_find_theirs() -> None:
    """How a product is cut depends on how many multiprocessors there are."""
    checkpoint = open_checkpoint("")
    brought = set(kernels_of("", ["sm_80", "sm_90a", "sm_100"]))
    asked: dict[tuple[str, int], set[Unit]] = {}
    for architecture, size in (
        ("sm_80", 58),
        ("sm_80", 72),
        ("sm_80", 108),
        ("sm_90a", 132),
        ("sm_100", 148),
    ):
        library = RecordingLibrary(architecture, size)
        record_decoder(Sample(checkpoint.name, checkpoint.decoder), False, library)
        asked[architecture, size] = set(library.shared_bytes)
        assert asked[architecture, size] <= brought, (architecture, size)
    assert asked["sm_80", 58] != asked["sm_80", 72] != asked["sm_80", 108]


def test_another_architecture_is_refused() -> None:
    with pytest.raises(SystemExit, match="error: sm_86: accepted: sm_80, sm_90a, sm_100"):
        main(["sm_86"])


def test_no_kernel_of_another_kind_of_model_is_among_them() -> None:
    sources = {unit.source for unit in kernels_of("", ["sm_90a"])}
    assert {"decode_attention.cu", "finish.cu", "sample.cu", "prompt_attention_sm90.cu"} <= sources
    assert not [name for name in sources if name.startswith("encoder")]
    assert sources <= {path.name for path in source_dir().glob("*.cu")}
