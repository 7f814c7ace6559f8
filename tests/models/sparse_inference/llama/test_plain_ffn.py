"""FFNs as plain numbers: the same outputs, and the files' formats of everything else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.sparse_inference import LlamaConfig, LlamaLM, quantize_llama, with_plain_ffn


def test_plain_ffns_give_what_quantised_ones_do():
    config = LlamaConfig(vocab_size=40, d_model=32, d_ff=64, n_layers=2, n_heads=2, tied_output=True)
    params = jax.jit(LlamaLM(config).init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    ck = Checkpoint("sparse_inference", "llama", *quantize_llama(config, params, "q8_0"))
    plain = with_plain_ffn(ck)
    assert dict(plain.config.formats).keys() == {
        name for name in dict(ck.config.formats) if ".ffn_" not in name
    }
    assert plain.params["blk_1"]["ffn_down"]["weight"].shape == (64, 32)
    tokens = jnp.arange(3, 23)[None]
    np.testing.assert_allclose(plain.apply(tokens).logits, ck.apply(tokens).logits, atol=2e-4, rtol=1e-4)
