"""Which kernels are compiled without a GPU, and what is made of the compiler's words."""

import pytest

from engine.kernels.gpu.compiler import Compiled, CompileFailed, source_dir
from engine.kernels.gpu.encoder_pool import KINDS
from engine.kernels.gpu.module import architecture_of
from engine.runner.gpu import cubins
from engine.runner.gpu.cubins import ARCHITECTURES, Outcome, Usage, ask_for_all, compile_unit, read_log, table
from engine.runner.gpu.kernel_set import Unit

LOG = """ptxas info    : 20 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90a'
ptxas info    : Function properties for first
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 22 registers, used 1 barriers, 20 bytes smem
ptxas info    : Compile time = 9.506 ms
ptxas info    : Compiling entry function 'second' for 'sm_90a'
ptxas info    : Function properties for second
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers
"""
UNIT = Unit("a.cu", (("HEAD_DIM", 64),), "sm_90a")


@pytest.fixture(scope="module")
def asked() -> dict[Unit, dict[str, int]]:
    return ask_for_all()


def test_every_source_is_compiled_for_every_architecture(asked: dict[Unit, dict[str, int]]) -> None:
    sources = {path.name for path in source_dir().glob("*.cu")}
    for architecture in ARCHITECTURES:
        found = {unit.source for unit in asked if unit.architecture == architecture}
        hopper = {name for name in sources if name.endswith("_sm90.cu")}
        assert found == (sources if architecture == "sm_90a" else sources - hopper), architecture


def test_a_gpu_gets_code_of_its_own_major_version() -> None:
    capabilities = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1))
    found = [architecture_of(*capability) for capability in capabilities]
    assert found == ["sm_80", "sm_80", "sm_80", "sm_90a", "sm_100", "sm_100", "sm_120", "sm_120"]
    assert set(found) == set(ARCHITECTURES)
    with pytest.raises(ValueError, match=r"7\.5 is too old"):
        architecture_of(7, 5)


def test_every_head_size_is_there_in_both_dtypes(asked: dict[Unit, dict[str, int]]) -> None:
    decodes = [dict(unit.defines) for unit in asked if unit.source == "decode_attention.cu"]
    assert {defines["HEAD_DIM"] for defines in decodes} == {64, 96, 128, 256}
    assert {defines.get("ELEMENT_FP16", 0) for defines in decodes} == {0, 1}
    assert {defines["DETERMINISTIC"] for defines in decodes} == {0, 1}


def test_every_pooling_and_activation_is_there(asked: dict[Unit, dict[str, int]]) -> None:
    pools = [dict(unit.defines) for unit in asked if unit.source == "encoder_pool.cu"]
    assert {defines["KIND"] for defines in pools} == set(range(len(KINDS)))
    assert {defines["X_FLOAT"] for defines in pools} == {0, 1}
    gelus = {
        (dict(unit.defines)["TANH"], function)
        for unit, functions in asked.items()
        if unit.source == "encoder_gelu.cu"
        for function in functions
    }
    assert gelus == {(0, "gelu"), (1, "gelu"), (0, "gelu_mul")}
    norms = [dict(unit.defines) for unit in asked if unit.source == "encoder_norm.cu"]
    assert {defines["TOKEN_WARPS"] for defines in norms} == {1, 3}


def test_the_log_is_read_kernel_by_kernel() -> None:
    first, second = Usage("first", 22, 20, 0), Usage("second", 255, 1024, 20)
    assert read_log(LOG, {"second": 1024}) == (first, second)
    lines = table([Outcome(UNIT, (first, second), ()), Outcome(UNIT, (Usage("first", 40, 0, 0),), ())])
    assert lines[1].split() == ["a.cu", "first", "sm_90a", "2", "40", "20", "0"]
    assert lines[2].split() == ["a.cu", "second", "sm_90a", "1", "255", "1024", "20"]


def test_spills_warnings_and_missing_kernels_are_complaints(monkeypatch: pytest.MonkeyPatch) -> None:
    warning = "ptxas warning : (C7508) Potential Performance Loss: 'setmaxnreg' ignored"
    monkeypatch.setattr(cubins, "compile_source", lambda *_: Compiled(b"", f"{LOG}{warning}\n"))
    outcome = compile_unit(UNIT, {"first": 0, "second": 0, "third": 0})
    assert outcome.complaints == (warning, "second spills 20 bytes", "third is not in it")


def test_more_shared_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = "\n".join(LOG.splitlines()[:6])
    monkeypatch.setattr(cubins, "compile_source", lambda *_: Compiled(b"", clean))
    asked = {"first": 200_000}
    assert compile_unit(UNIT, asked).complaints == ()
    (complaint,) = compile_unit(Unit("a.cu", (), "sm_80"), asked).complaints
    assert complaint == "first takes 200020 bytes of shared memory; accepted: 101376"


def test_a_source_that_does_not_compile_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> Compiled:
        raise CompileFailed("error: expected a ;")

    monkeypatch.setattr(cubins, "compile_source", refuse)
    monkeypatch.setattr(cubins, "ask_for_all", lambda: {UNIT: {"first": 0}})
    assert cubins.main(["a.cu"]) == 1
    output = capsys.readouterr().out
    assert "a.cu for sm_90a with HEAD_DIM=64:" in output and "expected a ;" in output


def test_the_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clean = "\n".join(LOG.splitlines()[:6])
    monkeypatch.setattr(cubins, "compile_source", lambda *_: Compiled(b"", clean))
    every = {Unit(path.name, (), "sm_80"): {"first": 0} for path in source_dir().glob("*.cu")}
    monkeypatch.setattr(cubins, "ask_for_all", lambda: every)
    assert cubins.main([]) == 0
    assert cubins.main(["no_such.cu"]) == 1
    missed = dict(list(every.items())[1:])
    monkeypatch.setattr(cubins, "ask_for_all", lambda: missed)
    assert cubins.main([]) == 1
    assert "no sample asks for" in capsys.readouterr().out
