"""The op: what nodes gather from their neighbours through filters of the distance."""

from __future__ import annotations

from collections.abc import Callable

from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.edge_conv import pairs, reference
from sparsejax.ops.edge_conv.filters import RadialFilter
from sparsejax.ops.edge_conv.layout import EdgeLayout, Edges, PairLayout


def edge_conv(
    scalars: Array,
    vectors: Array | None,
    edges: Edges,
    radial_filter: RadialFilter,
    layout: PairLayout | EdgeLayout,
    *,
    backend: str = "auto",
) -> tuple[Array, Array]:
    """Gather, filter and sum over edges: one message step of the force field.

    ``s_i = sum_j s_j W_s(d_ij)`` and ``v_i = sum_j v_j W_v(d_ij) + u_ij W_r(d_ij)``, channel by channel.

    Args:
      scalars: (n, c) features s of the nodes.
      vectors: (n, 3, c) features v; None where they are zero, as in a first layer: the filter then has no
        part W_v.
      edges: distances d, directions u, and which edges there are.
      radial_filter: with parts W_s, W_v, W_r of c channels.
      layout: the neighbours: pairs, each of which is computed once, or any directed edges.
      backend: "auto", "reference" (flat segment sums), "xla" (pairs as they are; edges as "reference"), or
        "pallas" (pairs only).

    Returns:
      sums (n, c) and (n, 3, c). Derivatives of any order exist; those with respect to a table's
      coefficients are for no one's use.

    Raises:
      ValueError: unknown backend, or "pallas" with directed edges.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax.ops.edge_conv import TableFilter
      >>> one = tuple(jnp.full((1, 1), value) for value in (1.0, 0.0, 0.0, 0.0))
      >>> pair = EdgeLayout(jnp.array([1, 0]), jnp.array([0, 1]))
      >>> edges = Edges(jnp.ones(2), jnp.zeros((2, 3)), jnp.ones(2, bool))
      >>> table = TableFilter((one, one), cutoff=5.0)
      >>> sums, _ = edge_conv(jnp.array([[2.0], [3.0]]), None, edges, table, pair)
      >>> sums.tolist()
      [[3.0], [2.0]]

    Source: specs/force_field.md section 1 step 6 (message).
    """
    chosen = backends.resolve(backend, backends.EDGE_CONV, dtype=scalars.dtype)
    if isinstance(layout, EdgeLayout):
        if backend.startswith("pallas"):
            raise ValueError("backend 'pallas' of edge_conv takes pairs of neighbours; use 'xla' for edges")
        return reference.edge_conv(scalars, vectors, edges, radial_filter, layout)
    if chosen == "reference":
        directed, flat = reference.as_edges(edges, layout)
        return reference.edge_conv(scalars, vectors, directed, radial_filter, flat)
    if chosen.startswith("pallas"):
        return _kernel(chosen)(scalars, vectors, edges, radial_filter, layout)
    return pairs.edge_conv(scalars, vectors, edges, radial_filter, layout)


def _kernel(name: str) -> Callable[..., tuple[Array, Array]]:
    """A Pallas backend, whose compilers take a second to import."""
    if name == "pallas_gpu":
        from sparsejax.ops.edge_conv import pallas_gpu

        return pallas_gpu.edge_conv
    from sparsejax.ops.edge_conv import pallas_tpu

    return pallas_tpu.edge_conv
