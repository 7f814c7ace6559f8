"""The scale of the drive folded into the coupling; its value is in the function's own example."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ten import EigenstateLayer, TemporalEigenstateConfig
from sparsejax.models.ten.fold import fold_normalization

NORMED, BARE = EigenstateLayer(normalize_input=True), EigenstateLayer()


def config_of(layer, **fields):
    return TemporalEigenstateConfig.modern(n_layers=1, num_eigenstates=2, n_heads=1, layer=layer, **fields)


def test_only_what_is_normalised_is_scaled():
    own = {"decay_logit": jnp.zeros(2), "frequency": jnp.zeros(2), "coupling": jnp.ones((1, 2, 2))}
    params = {"layer_0": own, "long_layer_0": own}
    config, folded = fold_normalization(config_of(NORMED, long_layer=BARE), params)
    assert not config.layer.normalize_input and config.long_layer == BARE
    assert folded["long_layer_0"] is own
    np.testing.assert_allclose(folded["layer_0"]["coupling"], np.sqrt(0.75), rtol=1e-6)


@pytest.mark.parametrize("options", [{"selective": True}, {"coupling": "none"}])
def test_what_cannot_be_folded_is_refused(options):
    layer = EigenstateLayer(normalize_input=True, **options)
    with pytest.raises(ValueError, match="only constant eigenvalues with a coupling of blocks or in full"):
        fold_normalization(config_of(layer), {"layer_0": {}})
