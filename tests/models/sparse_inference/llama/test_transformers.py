"""Networks of the transformers library with random weights, converted as GGUF files hold them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.generation import generate
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.llama.rope import RopeConfig
from tests.models.sparse_inference.llama_files import interleave_heads, llama3_factors, llama_params
from tests.models.sparse_inference.llama_oracle import file_tensors

pytestmark = pytest.mark.torch

PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 1000.0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 5000.0,
}
# transformers' class, its options, ours
CASES = {
    "llama": ("Llama", {"rms_norm_eps": 1e-5}, {}),
    "llama_linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
        {"rope": RopeConfig(8, base=500.0, scaling="linear", factor=2.0)},
    ),
    "llama_yarn": (
        "Llama",
        {"rope_parameters": YARN},
        {"rope": RopeConfig(8, base=1000.0, scaling="yarn", factor=4.0, original_context=64)},
    ),
    "llama3_tied": (
        "Llama",
        {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
        {"rope": RopeConfig(8, base=5000.0), "rope_factors": True, "tied_output": True},
    ),
    "llama_wide_heads_biased": (
        "Llama",
        {"head_dim": 16, "attention_bias": True, "hidden_act": "relu"},
        {
            "head_dim": 16,
            "biases": ("attn_q", "attn_k", "attn_v", "attn_output"),
            "activation": "relu",
        },
    ),
    "mistral": ("Mistral", {"sliding_window": 7}, {"architecture": "mistral", "sliding_window": 7}),
    "qwen2": (
        "Qwen2",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {
            "architecture": "qwen2",
            "biases": ("attn_q", "attn_k", "attn_v"),
            "rope": RopeConfig(8, base=1e6, interleaved=False),
        },
    ),
}


def converted(theirs, config):
    """Tensors by GGUF name, as the published converters make them."""
    found = {}
    for key, value in theirs.state_dict().items():
        array, name = value.numpy(), key.removeprefix("model.")
        if name.startswith("layers."):
            _, number, *inner, last = name.split(".")
            part = PARTS[".".join(inner)]
            if part in ("attn_q", "attn_k") and config.rotary.interleaved:
                array = interleave_heads(array, config.n_heads if part == "attn_q" else config.n_kv_heads)
            found[f"blk.{number}.{part}.{last}"] = array
        else:
            found[
                {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}.get(
                    name, "output.weight"
                )
            ] = array
    if config.rope_factors:
        found["rope_freqs.weight"] = llama3_factors(
            config.head_dim, config.rotary.base, factor=8.0, original_context=64
        )
    return found


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens_are_those_of_transformers(case):
    transformers = pytest.importorskip("transformers")
    import torch

    kind, options, ours = CASES[case]
    sizes = {**SIZES, "rms_norm_eps": 1e-6, **options, "attn_implementation": "eager"}
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    for name, weight in made.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            torch.nn.init.normal_(weight.data, 1.0 if "norm" in name else 0.0, 0.3)
    config = LlamaConfig(
        **{
            "vocab_size": 97,
            "d_model": 48,
            "d_ff": 80,
            "n_layers": 3,
            "n_heads": 6,
            "n_kv_heads": 2,
            "context_length": 256,
            "norm_eps": sizes["rms_norm_eps"],
            **ours,
        }
    )
    params = llama_params(config, file_tensors(converted(made, config)))
    tokens = np.random.default_rng(0).integers(0, 97, (2, 100))
    with torch.no_grad():
        expected = made.double()(torch.as_tensor(tokens)).logits.numpy()
    found = np.asarray(jax.jit(LlamaLM(config).apply)({"params": params}, tokens.astype(np.int32)).logits)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    if case in ("mistral", "qwen2"):
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        told = made.generate(torch.as_tensor(tokens[:1, :9]), **options)[0, 9:].numpy()
        grown = generate((LlamaLM(config), params), tokens[:1, :9], max_new_tokens=12, temperature=0)
        np.testing.assert_array_equal(grown.tokens[0], told)
