"""The model families; each registers its file layouts when it is first asked for."""

from sparsejax.checkpoint.registry import declare

FAMILIES = ("ultra_sparse", "ten", "sprout", "force_field", "sparse_inference")

for _family in FAMILIES:
    declare(f"{__name__}.{_family}.convert")
