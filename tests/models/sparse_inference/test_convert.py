"""Files of the family: what is loaded is what was published, and what is written is what was loaded."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, torch_file
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.gguf import read_gguf, write_gguf
from sparsejax.checkpoint.verification import verify
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.convert import overrides_for, same_function
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.names import ROW_BY_ROW
from sparsejax.models.sparse_inference.part_configs import FFNConfig, ScorerConfig, WeightsConfig
from sparsejax.models.sparse_inference.part_modules import AffineMatrix, predictor_of
from sparsejax.models.sparse_inference.parts import build, check_inputs, example_inputs
from sparsejax.ops.quantized import AffineTensor, QuantizedTensor
from tests import golden
from tests.command_line import run

FAMILY = "sparse_inference"
KIND = "sparse_inference"


def made(config, variant, **changes) -> Checkpoint:
    """A checkpoint that came from no file, of drawn parameters."""
    params = jax.jit(build(config).init)(jax.random.key(0), *example_inputs(config))["params"]
    return Checkpoint(KIND, variant, config, params).replace(**changes)


def llama(**changes):
    sizes = {"vocab_size": 64, "d_model": 32, "d_ff": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
    return LlamaConfig(norm_eps=2**-17, **sizes | changes)  # a number that float32 holds


@pytest.fixture(scope="module")
def network():
    """A network with matrices in three formats, as files of mixed quantisation have them."""
    formats = (
        ("token_embd.weight", "q8_0"),
        ("blk.0.attn_q.weight", "q4_0"),
        ("blk.0.ffn_down.weight", "q8_0"),
        ("blk.1.ffn_up.weight", "f16"),
        ("blk.1.ffn_down.weight", "bf16"),
    )
    ck = made(llama(), "gguf_llama")
    config, params = llama(formats=formats), jax.tree.map(lambda leaf: leaf, ck.params)
    for name, kind in formats:
        *stem, part, _ = name.replace("blk.", "blk_").split(".")
        owner = params[stem[0]][part] if stem else params[part]
        array = np.asarray(owner["weight"], np.float32)
        if kind in ("f16", "bf16"):
            owner["weight"] = jnp.asarray(array, {"f16": jnp.float16, "bf16": jnp.bfloat16}[kind])
        else:
            order = "rows" if part in ROW_BY_ROW else "columns"  # as files are loaded
            values = array.T if part == "ffn_down" else array
            owner["weight"] = QuantizedTensor.quantize(values, kind, order=order)
    tokens = ["<unk>", *(f"t{number}" for number in range(63))]
    metadata = {"tokenizer.ggml.model": "none", "tokenizer.ggml.tokens": tokens, "general.name": "toy"}
    return ck.replace(config=config, params=params, metadata=metadata)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "x.gguf"
    sj.export_pt(network, path)
    return path


# networks in GGUF


def test_a_network_is_written_and_loaded(network, file):
    ck = sj.load(file)
    assert (ck.kind, ck.variant, ck.config) == (KIND, "gguf_llama", network.config)
    assert jax.tree.structure(ck.params) == jax.tree.structure(dict(network.params))
    jax.tree.map(np.testing.assert_array_equal, ck.params, dict(network.params))
    assert ck.metadata["tokenizer.ggml.tokens"] == network.metadata["tokenizer.ggml.tokens"]
    assert ck.metadata["llama.block_count"] == 2 and ck.metadata["general.architecture"] == "llama"
    formats = {name: tensor.format for name, tensor in read_gguf(file).tensors.items()}
    assert formats["blk.0.attn_q.weight"] == "q4_0" and formats["blk.1.ffn_down.weight"] == "bf16"
    assert (
        formats["output.weight"] == "f32" and next(iter(read_gguf(file).metadata)) == "general.architecture"
    )
    assert ck.num_values == sum(tensor.size for tensor in read_gguf(file).tensors.values())


def test_directories_and_files_give_each_other_back_bit_for_bit(file, tmp_path):
    sj.save(sj.load(file), tmp_path / "model")
    header = json.loads((tmp_path / "model" / "sparsejax.json").read_text())
    assert header["packed"]["blk_0/attn_q/weight"] == {
        "format": "q4_0",
        "shape": [32, 32],
        "order": "columns",
    }
    sj.export_pt(sj.load(tmp_path / "model"), tmp_path / "y.gguf")
    assert (tmp_path / "y.gguf").read_bytes() == file.read_bytes()
    rows = {row.key: row for row in sj.inspect(tmp_path / "model").tensors}
    assert rows["blk_0/attn_q/weight"].dtype == "q4_0" and rows["blk_0/attn_q/weight"].shape == (32, 32)
    assert rows["blk_0/attn_q/weight"].nbytes == 32 * 18


def test_cast_networks_keep_their_blocks(file, tmp_path):
    ck = sj.load(file, dtype="bfloat16")
    assert ck.params["blk_0"]["attn_k"]["weight"].dtype == jnp.bfloat16
    assert ck.params["blk_0"]["attn_q"]["weight"].format == "q4_0"
    sj.save(ck, tmp_path / "model")
    again = sj.load(tmp_path / "model", dtype="float32")
    assert again.params["blk_0"]["attn_k"]["weight"].dtype == jnp.float32
    assert again.params["blk_0"]["attn_q"]["weight"].planes["d"].dtype == jnp.float16
    sj.export_pt(ck, tmp_path / "y.gguf")
    assert read_gguf(tmp_path / "y.gguf").tensors["blk.0.attn_k.weight"].format == "bf16"


@pytest.mark.parametrize("architecture", ["mistral", "qwen2"])
def test_other_architectures(architecture, tmp_path):
    biases = ("attn_q", "attn_k", "attn_v") if architecture == "qwen2" else ()
    ck = made(llama(architecture=architecture, biases=biases, tied_output=True), "gguf_llama")
    sj.export_pt(ck, tmp_path / "x.gguf")
    assert sj.load(tmp_path / "x.gguf").config == ck.config
    assert f"{architecture}.block_count" in read_gguf(tmp_path / "x.gguf").metadata


def test_inspect_tells_what_a_network_is(file):
    report = sj.inspect(file)
    assert (report.file_format, report.kind, report.variant) == ("gguf", KIND, "gguf_llama")
    assert report.facts["architecture"] == "llama" and report.facts["tokenizer"] == "none, 64 tokens"
    assert report.problem is None and report.unknown == () and report.config.n_layers == 2
    assert {row.dtype for row in report.tensors} == {"f32", "f16", "bf16", "q8_0", "q4_0"}


def changed(file, path, drop=(), metadata=None, tensors=None):
    source = read_gguf(file)
    kept = {name: tensor for name, tensor in source.tensors.items() if name not in drop}
    write_gguf(path, source.metadata | (metadata or {}), kept | (tensors or {}), types=source.types)
    return path


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"drop": ["blk.1.ffn_up.weight"]}, errors.MissingKeyError, "blk.1.ffn_up.weight"),
        ({"tensors": {"blk.0.x.weight": np.ones(3)}}, errors.CheckpointError, "blk.0.x.weight"),
        (
            {"tensors": {"output_norm.weight": np.ones(3, np.float32)}},
            errors.ShapeError,
            "output_norm.weight",
        ),
        (
            {"metadata": {"general.architecture": "bert"}},
            errors.UnknownFormatError,
            "'bert' is not supported",
        ),
        (
            {"tensors": {"output_norm.weight": np.ones(32, np.int32)}},
            errors.UnsupportedTensorError,
            "i32 numbers",
        ),
        (
            {"tensors": {"output_norm.weight": np.full(32, np.nan, np.float32)}},
            errors.NonFiniteError,
            "32 of 32 values of 'output_norm.weight'",
        ),
        (
            {
                "tensors": {
                    "blk.0.attn_q.weight": QuantizedTensor.from_bytes(
                        np.full(576, 0xFF, np.uint8), "q4_0", (32, 32)
                    )
                }
            },
            errors.NonFiniteError,
            "scales of 'blk.0.attn_q.weight'",
        ),
        ({"tensors": {"blk.0.ffn_up_exps.weight": np.ones(3)}}, errors.GGUFError, "mixture of experts"),
        ({"metadata": {"split.count": 2}}, errors.GGUFError, "split model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_no_network_are_told(file, tmp_path, change, kind, words):
    path = changed(file, tmp_path / "x.gguf", **change)
    with pytest.raises(kind, match=words) as caught:
        sj.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    if kind is not errors.NonFiniteError:
        problem = sj.inspect(path).problem
        assert type(problem) is type(caught.value) and str(problem) == str(caught.value)


def test_files_that_say_no_architecture_are_compared_with_ours(tmp_path):
    write_gguf(tmp_path / "x.gguf", {}, {"w": np.ones(3, np.float32)})
    with pytest.raises(
        errors.UnknownFormatError, match="no known layout has the tensors 'w'; nearest: sparse"
    ):
        sj.load(tmp_path / "x.gguf")
    with pytest.raises(errors.UnknownFormatError, match="no gguf file is of kind 'ten'"):
        sj.load(tmp_path / "x.gguf", kind="ten")


def test_verify_and_convert_on_the_command_line(file, tmp_path, capsys):
    assert all(check.passed for check in verify(file))
    assert run(["convert", str(file), str(tmp_path / "model")]) == 0
    assert run(["convert", str(tmp_path / "model"), str(tmp_path / "y.gguf")]) == 0
    assert (tmp_path / "y.gguf").read_bytes() == file.read_bytes()
    capsys.readouterr()
    assert run(["inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "architecture  llama" in shown and "none, 64 tokens" in shown and "q4_0" in shown
    assert run(["convert", str(file), str(tmp_path / "y.json")]) == 1
    assert "written as a .gguf file" in capsys.readouterr().err
    assert run(["convert", str(file), str(tmp_path / "y.pt")]) == 1
    assert "written as a .gguf file" in capsys.readouterr().err


@pytest.mark.golden("llama_tiny_f32", "llama_tiny_q8_0")
@pytest.mark.parametrize("name", ["llama_tiny_f32", "llama_tiny_q8_0"])
def test_golden_networks_come_back_bit_for_bit(name, tmp_path):
    path = golden.path(FAMILY, f"{name}.gguf")
    sj.save(sj.load(path), tmp_path / "model")
    sj.export_pt(sj.load(tmp_path / "model"), tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == path.read_bytes()


# published JSON


@pytest.mark.golden("ffn_small")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_golden_ffn(version, tmp_path):
    path = golden.path(FAMILY, f"ffn_small.serde_{version}.json")
    arrays = golden.arrays(FAMILY, "ffn_small")
    ck = sj.load(path)
    assert (ck.variant, ck.config) == (f"ffn_{version}", FFNConfig(8, 24, 6, "gelu_tanh"))
    np.testing.assert_array_equal(ck.params["w_out"], arrays["w2"].T)
    np.testing.assert_allclose(ck.apply(arrays["x"]), arrays["dense_gelu_f64"], rtol=1e-5, atol=1e-5)
    sj.export_pt(ck, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == path.read_bytes()
    sj.save(ck, tmp_path / "model")
    other = "v2" if version == "v1" else "v1"
    sj.export_pt(sj.load(tmp_path / "model"), tmp_path / "y.json", variant=f"ffn_{other}")
    again = sj.load(tmp_path / "y.json")
    assert again.variant == f"ffn_{other}" and again.config == ck.config
    jax.tree.map(np.testing.assert_array_equal, again.params, ck.params)


@pytest.mark.golden("predictor_small", "predictor_med")
@pytest.mark.parametrize("name", ["predictor_small", "predictor_med"])
def test_golden_predictor(name, tmp_path):
    path, arrays = golden.path(FAMILY, f"{name}.serde.json"), golden.arrays(FAMILY, name)
    ck = sj.load(path)
    x, scores = arrays["x"], arrays["scores_f64"]
    np.testing.assert_allclose(ck.apply(x), scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predictor_of(ck.config, ck.params).scores(x), ck.apply(x), rtol=1e-6)
    sj.export_pt(ck, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == path.read_bytes()


@pytest.mark.golden("quant_affine_a")
def test_golden_quantised_weights(tmp_path):
    path = golden.path(FAMILY, "quant_affine_a_c1.serde.json")
    ck = sj.load(path)
    assert ck.config == WeightsConfig((4, 16), 4, 32)
    weights = AffineTensor.from_dict(json.loads(path.read_text())).dequantize()
    np.testing.assert_allclose(ck.apply(jnp.eye(16)), weights.T, atol=1e-6)
    sj.export_pt(ck, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == path.read_bytes()
    assert all(check.passed for check in verify(path))


@pytest.mark.parametrize(
    ("config", "variant"),
    [
        (FFNConfig(4, 6, 3, "silu"), "ffn_v1"),
        (FFNConfig(4, 6, 3, "relu"), "ffn_v2"),
        (ScorerConfig(4, 6, 2, sparsity=SparsityConfig.with_top_k(3)), "predictor"),
        (ScorerConfig(4, 6, 2, bias=True, sparsity=SparsityConfig.with_threshold(0.5)), "predictor"),
        (ScorerConfig(4, 6, 2, "relu", sparsity=SparsityConfig.with_threshold(0)), "powerinfer"),
        (WeightsConfig((3, 5), 4, 4), "quantized_weights"),
    ],
)
def test_new_parts_are_written_and_loaded(config, variant, tmp_path):
    ck = made(config, variant)
    path = tmp_path / ("x.pt" if variant == "powerinfer" else "x.json")
    sj.export_pt(ck, path)
    again = sj.load(path)
    assert (again.variant, again.config) == (variant, config)
    jax.tree.map(np.testing.assert_array_equal, again.params, dict(ck.params))
    sj.save(again, tmp_path / "model")
    restored = sj.load(tmp_path / "model")
    assert restored.config == config and restored.layout == again.layout
    assert sj.inspect(path).config == config


@pytest.mark.parametrize(
    "config",
    [FFNConfig(4, 6, 3), ScorerConfig(4, 6, 2), WeightsConfig((3, 4), 4, 4)],
    ids=lambda c: type(c).__name__,
)
@pytest.mark.parametrize("inputs", [[0.5] * 4, 1.0, np.ones(4, int), np.ones(4, bool), np.ones(4, complex)])
def test_parts_refuse_what_is_no_array_of_floats(config, inputs):
    with pytest.raises(ValueError, match="inputs must be an array of floating numbers"):
        check_inputs(config, inputs)


def test_quantised_parts_are_multiplied_in_float32_and_take_no_integers():
    matrix = AffineMatrix(WeightsConfig((3, 4), 4, 4))
    codes = AffineTensor.quantize(np.linspace(-1, 1, 12).reshape(3, 4), 4, group_size=4)
    params = {"params": {name: getattr(codes, name) for name in ("data", "scales", "zero_points")}}
    outputs = matrix.apply(params, jnp.ones((2, 4), jnp.bfloat16))
    wanted = jnp.sum(codes.dequantize(), axis=1).astype(jnp.bfloat16)
    np.testing.assert_array_equal(outputs, jnp.stack([wanted] * 2))
    with pytest.raises(ValueError, match="inputs must be floating point, not int32"):
        matrix.apply(params, jnp.ones(4, jnp.int32))


def ffn(**changes):
    def array(*shape):
        return {"v": 1, "dim": list(shape), "data": [0.5] * int(np.prod(shape))}

    tree = {"w1": array(6, 4), "w2_t": array(3, 6), "b1": array(6), "b2": array(3), "activation": "Relu"}
    tree |= {"output_dim": 3} | changes
    return {name: value for name, value in tree.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"b2": None}, errors.MissingKeyError, "'b2'"),
        ({"output_dim": None}, errors.MissingKeyError, "'output_dim'"),
        ({"output_dim": 4}, errors.ShapeError, "'output_dim' is 4"),
        ({"activation": "Tanh"}, errors.AmbiguousVariantError, "'Tanh' is none of 'Relu'"),
        ({"activation": None}, errors.AmbiguousVariantError, "give overrides"),
        ({"w2_t": {"v": 1, "dim": [6, 3], "data": [0] * 18}}, errors.ShapeError, "6 columns are needed"),
        ({"b1": {"v": 1, "dim": [5], "data": [0] * 5}}, errors.ShapeError, "'b1'"),
        ({"w3": {"v": 1, "dim": [1], "data": [0]}}, errors.UnexpectedKeyError, "'w3'"),
        ({"w1": {"v": 1, "dim": [6, 4], "data": [1e39] * 24}}, errors.NonFiniteError, "'w1'"),
        ({"w1": 3}, errors.CheckpointError, "w1|no known layout"),
    ],
)
def test_ffn_files_that_lack_something_are_told(change, kind, words, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(ffn(**change)))
    with pytest.raises(kind, match=words):
        sj.load(tmp_path / "x.json")


def test_matrices_of_predictors_that_do_not_fit_are_told(tmp_path):
    torch_file.write(
        {"fc1.weight": np.ones((2, 4), np.float32), "fc2.weight": np.ones((6, 3), np.float32)},
        tmp_path / "x.pt",
    )
    with pytest.raises(
        errors.ShapeError, match=r"'fc2.weight' has 3 columns, 'fc1.weight' has 2 rows; both are"
    ):
        sj.load(tmp_path / "x.pt")


def test_codes_of_elements_that_are_not_there_are_told(tmp_path):
    document = AffineTensor.quantize(np.linspace(-1, 1, 15).reshape(3, 5), 4, group_size=4).to_dict()
    (tmp_path / "x.json").write_text(json.dumps(document))
    assert sj.load(tmp_path / "x.json").config == WeightsConfig((3, 5), 4, 4)
    document["data"][-1] += 16
    (tmp_path / "x.json").write_text(json.dumps(document))
    with pytest.raises(errors.CorruptFileError, match="the last byte of 'data' holds a code for an element"):
        sj.load(tmp_path / "x.json")


def test_parts_compute_the_same_if_their_configs_are_equal():
    assert same_function(FFNConfig(4, 6, 3, "relu"), FFNConfig(4, 6, 3, "relu"))
    assert not same_function(FFNConfig(4, 6, 3, "relu"), FFNConfig(4, 6, 3, "silu"))
    assert overrides_for(FFNConfig(4, 6, 3, "relu")) == {}


def test_what_a_file_does_not_tell_is_given(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(ffn(activation=None)))
    assert sj.load(tmp_path / "x.json", overrides={"activation": "Swish"}).config.activation == "silu"
    with pytest.raises(errors.AmbiguousVariantError, match="overrides has no 'rank'"):
        sj.load(tmp_path / "x.json", overrides={"rank": 3})
    (tmp_path / "x.json").write_text(json.dumps({"weights": [1.5]}))
    with pytest.raises(errors.UnknownFormatError, match="nearest: sparse_inference"):
        sj.load(tmp_path / "x.json")


# PowerInfer


@pytest.mark.golden("powerinfer_a")
def test_golden_powerinfer_predictor(tmp_path):
    path, arrays = golden.path(FAMILY, "powerinfer_model_0_a.pt"), golden.arrays(FAMILY, "powerinfer_a")
    ck = sj.load(path)
    assert ck.config == ScorerConfig(12, 40, 12, "relu", sparsity=SparsityConfig.with_threshold(0))
    np.testing.assert_allclose(ck.apply(arrays["x"]), arrays["logits"], rtol=1e-5, atol=1e-5)
    np.savez(tmp_path / "r.npz", x=arrays["x"], outputs=arrays["logits"])
    shutil.copy(path, tmp_path / "x.pt")
    assert all(check.passed for check in verify(tmp_path / "x.pt", tmp_path / "r.npz"))
    other = sj.load(path, overrides={"threshold": -0.5})
    assert other.config.sparsity == SparsityConfig(threshold=-0.5, adaptive_threshold=True)
    sj.export_pt(other, tmp_path / "y.pt")
    assert sorted(torch_file.read(tmp_path / "y.pt")) == ["fc1.weight", "fc2.weight"]


# calls


def test_calls_that_cannot_be_right_are_told(file, tmp_path):
    ck = sj.load(file)
    for tokens, words in (
        (np.zeros(3, int), r"\(b, t\) is needed"),
        (np.zeros((1, 3)), "tokens are float64; integers are needed"),
        (np.array([[64]]), "this vocabulary has 0 to 63"),
        (np.array([[-1]]), "this vocabulary has 0 to 63"),
        (np.zeros((1, 0), int), "an empty sequence"),
        ([[1, 2]], "tokens are a list"),
    ):
        with pytest.raises(ValueError, match=words):
            ck.apply(tokens)
    with pytest.raises(ValueError, match="no option 'topk'; it takes 'state'"):
        ck.apply(np.array([[1, 2]]), topk=3)
    ffn = made(FFNConfig(4, 6, 3), "ffn_v1")
    with pytest.raises(ValueError, match=r"\(\.\.\., 4\) is needed"):
        ffn.apply(jnp.ones(3))
    with pytest.raises(ValueError, match="one array of inputs is needed, not 2 arguments"):
        ffn.apply(jnp.ones(4), jnp.ones(4))
    with pytest.raises(ValueError, match="no option 'state'; it takes 'scores'"):
        ffn.apply(jnp.ones(4), state=None)


def test_configs_of_damaged_directories_are_told(file, tmp_path):
    sj.save(sj.load(file), tmp_path / "model")
    header = tmp_path / "model" / "sparsejax.json"
    document = json.loads(header.read_text())
    for config, words in (({}, "which part"), ({"part": "ffn", "d_modell": 3}, "none of FFNConfig")):
        header.write_text(json.dumps({**document, "config": config}))
        with pytest.raises(errors.CorruptFileError, match=words):
            sj.load(tmp_path / "model")
