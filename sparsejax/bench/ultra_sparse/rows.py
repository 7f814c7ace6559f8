"""Speed and error of the ultra-sparse nets beside NumPy, numba and PyTorch.

``sparsejax bench ultra_sparse`` runs this in a child process whose every library has one thread (see
`pinned`). The rows are those of the published claims: x -> y with the feature expansion, features -> y
without it, and the import of checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from sparsejax.bench import loading
from sparsejax.bench.contest import Call, Contest, decide
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers import numba_net, numpy_net, torch_net
from sparsejax.bench.peers import numpy_expansion as expansion
from sparsejax.bench.peers.weights import SparseWeights, dense_weights, sparse_weights
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row, Target

FEATURES = 256
SMALL, LARGE = 4096, 65_536

_DOMAIN = 2 * np.pi
_CACHE_LINE = 64
_FLOAT_BYTES = 4
_END_TO_END_TARGETS = {
    1: (Target("numpy 256 columns", at_least=20),),
    SMALL: (Target("numpy 256 columns", at_least=10),),
}
_FEATURE_TARGETS = {
    (SMALL, False): (Target("numba", at_least=5), Target("numpy", at_least=1)),
    (LARGE, True): (Target("numpy", at_least=8),),
    (LARGE, False): (Target("numpy", at_least=1.3),),
}

Function = Callable[[np.ndarray], Any]


def run(
    quick: bool = False, *, checkpoint: str | os.PathLike[str] | None = None, threads: int = 1
) -> list[Row]:
    """All rows, measured in a child process with ``threads`` threads for every contestant.

    Args:
      quick: fewer repetitions, no compiled torch, 64 MiB instead of 1 GiB to import.
      checkpoint: a sparse net with 256 inputs and one output; None takes the shipped one.
      threads: of every library, bound to as many cores. The import rows have all cores, which NumPy's
        single read cannot use.

    Returns:
      rows in the order of the table.
    """
    options = {"quick": quick, "checkpoint": None if checkpoint is None else os.fspath(checkpoint)}
    rows = run_pinned(__name__, options, threads)
    return rows + run_pinned(loading.__name__, {"quick": quick}, len(allowed_cores()))


def measure(*, quick: bool, checkpoint: str | None, threads: int) -> list[Row]:
    """`run` in this process, whose threads the caller has limited."""
    trained, machine = sparse_checkpoint(checkpoint), Machine.describe(threads)
    contests: list[Callable[[], Contest]] = [
        *(lambda batch=batch: end_to_end(trained, batch, machine, quick=quick) for batch in (1, SMALL)),
        *(lambda batch=batch: from_features(trained, batch, machine, quick=quick) for batch in (1, SMALL)),
        lambda: from_features(trained, LARGE, machine, features_first=True, quick=quick),
        lambda: from_features(trained, LARGE, machine, quick=quick),
        lambda: dense_from_features(SMALL),
    ]
    rows = []
    for contest in contests:
        rows.append(decide(contest(), machine, quick=quick))
        tell(rows[-1])
    return rows


def sparse_checkpoint(path: str | os.PathLike[str] | None = None) -> Any:
    """The net that is measured: from a file, or the shipped one."""
    from sparsejax.checkpoint.load import load
    from sparsejax.shipped import shipped_file

    return load(shipped_file("ultra_sparse_sine.pt") if path is None else path)


def end_to_end(trained: Any, batch: int, machine: Machine, *, quick: bool) -> Contest:
    """X -> y: a NumPy array in, a NumPy array out, with the expansion of features."""
    import jax

    from sparsejax.models.ultra_sparse import fuse

    net = sparse_weights(trained.params)
    x = np.random.default_rng(0).uniform(-_DOMAIN, _DOMAIN, batch).astype(np.float32)
    fused: Callable[[Any], Any] = fuse(trained)
    placed = jax.device_put(x)
    grid = np.linspace(-_DOMAIN, _DOMAIN, 100, dtype=np.float32)
    exact = oracle(net, expansion.expand_by_group(grid.astype(np.float64)))
    sine = np.sin(grid.astype(np.float64))
    return Contest(
        case=f"x -> y, batch {batch:,}, NumPy in and out",
        ours=lambda: np.asarray(fused(x)),
        peers=end_to_end_peers(net, x, quick=quick),
        oracle=oracle(net, expansion.expand_by_group(x.astype(np.float64))),
        bound=machine.dispatch_bound() if batch == 1 else _column_bound(net, batch, machine),
        variants={"x on device": lambda: fused(placed)},
        targets=_END_TO_END_TARGETS.get(batch, ()),
        quality={
            "MSE to sin(x)": {
                "ours": float(np.mean((np.asarray(fused(grid)) - sine) ** 2)),
                "float64 oracle": float(np.mean((exact - sine) ** 2)),
            }
        },
    )


def end_to_end_peers(net: SparseWeights, x: np.ndarray, *, quick: bool) -> dict[str, Callable[[], Call]]:
    """Builders of x (b,) -> y (b,): the full expansion in three forms, and the columns that are read."""
    used, order = expansion.expand_columns(sorted({int(index) for index in net.indices.ravel()}))
    small, fast = net.on_columns(order), expansion.expand_fast()

    def chained(expand: Function, build: Callable[[], Function]) -> Callable[[], Call]:
        def builder() -> Call:
            forward = build()
            return lambda: np.ravel(forward(expand(x)))

        return builder

    def in_torch(compile_it: bool) -> Call:
        expand, forward, tensor = torch_net.expansion(), torch_net.sparse_rows(net), torch_net.tensor(x)

        def whole(x: Any) -> Any:
            return forward(expand(x))[:, 0]

        function = torch_net.compiled(whole, tensor) if compile_it else torch_net.eager(whole)
        return lambda: function(torch_net.tensor(x)).numpy()

    by_group, by_column = expansion.expand_by_group, expansion.expand_by_column
    peers = {
        "numpy 256 columns + numba net": chained(fast, lambda: numba_net.sparse_rows(net)),
        "numpy 256 columns, by group + numba net": chained(by_group, lambda: numba_net.sparse_rows(net)),
        "numpy 256 columns, one by one + numba net": chained(by_column, lambda: numba_net.sparse_rows(net)),
        "numpy 256 columns + numpy net": chained(fast, lambda: numpy_net.sparse_rows(net)),
        f"numpy {len(order)} columns + numpy net": chained(
            used, lambda: numpy_net.sparse_features_first(small)
        ),
        f"numpy {len(order)} columns + numba net": chained(
            used, lambda: numba_net.sparse_features_first(small)
        ),
        "torch 256 columns + torch net": lambda: in_torch(compile_it=False),
    }
    return peers if quick else {**peers, "torch, compiled": lambda: in_torch(compile_it=True)}


def from_features(
    trained: Any, batch: int, machine: Machine, *, features_first: bool = False, quick: bool
) -> Contest:
    """Features -> y: every contestant reads the same matrix in the same layout, on the device already."""
    import jax

    from sparsejax.models.ultra_sparse import UltraSparseNet
    from sparsejax.models.ultra_sparse.fuse import compile_network

    net = sparse_weights(trained.params)
    x = _features(batch)
    exact = oracle(net, x.astype(np.float64))
    x = np.ascontiguousarray(x.T) if features_first else x
    placed, params, model = jax.device_put(x), trained.params, UltraSparseNet(trained.config)
    network = compile_network(trained, features_first=features_first)
    traced = jax.jit(lambda params, x: model.apply({"params": params}, x, features_first=features_first))
    options = {"features_first": True} if features_first else {}
    layout = "features first (I, B)" if features_first else "rows first (B, I)"
    return Contest(
        case=f"features -> y, batch {batch:,}, {layout}",
        ours=lambda: network(placed),
        peers=feature_peers(net, x, features_first=features_first, threads=machine.threads, quick=quick),
        oracle=exact,
        bound=machine.dispatch_bound() if batch == 1 else _work_bound(net, batch, machine, features_first),
        variants={
            "jit(model.apply)": lambda: traced(params, placed),
            "ck.apply": lambda: trained.apply(placed, **options),
        },
        targets=_FEATURE_TARGETS.get((batch, features_first), ()),
    )


def feature_peers(
    net: SparseWeights, x: np.ndarray, *, features_first: bool, threads: int, quick: bool
) -> dict[str, Callable[[], Call]]:
    """Builders of features -> outputs, for (b, i), or (i, b) if ``features_first``."""
    layout = "sparse_features_first" if features_first else "sparse_rows"

    def on_array(function: Function) -> Call:
        return lambda: function(x)

    def in_torch(compile_it: bool) -> Call:
        forward, tensor = getattr(torch_net, layout)(net), torch_net.tensor(x)
        function = torch_net.compiled(forward, tensor) if compile_it else torch_net.eager(forward)
        return lambda: function(tensor)

    peers: dict[str, Callable[[], Call]] = {
        "numpy": lambda: on_array(getattr(numpy_net, layout)(net)),
        "numpy, one expression": lambda: on_array(getattr(numpy_net, f"{layout}_plain")(net)),
        "numba": lambda: on_array(getattr(numba_net, layout)(net)),
        "torch": lambda: in_torch(compile_it=False),
    }
    if not features_first and x.size >= LARGE * FEATURES:
        peers["numpy, in blocks"] = lambda: on_array(numpy_net.sparse_rows_blocked(net))
    if threads > 1:
        peers["numba, parallel"] = lambda: on_array(getattr(numba_net, layout)(net, parallel=True))
    if not quick:
        peers["torch, compiled"] = lambda: in_torch(compile_it=True)
    return peers


def dense_from_features(batch: int) -> Contest:
    """The dense 256-8-1 net that the sparse one replaces."""
    import jax

    from sparsejax.models.ultra_sparse import DenseNet

    model = DenseNet()
    params = model.init(jax.random.key(0), np.zeros(FEATURES, np.float32))["params"]
    net, x = dense_weights(params), _features(batch)
    placed, traced = jax.device_put(x), jax.jit(lambda params, x: model.apply({"params": params}, x))

    def in_torch() -> Call:
        function, tensor = torch_net.eager(torch_net.dense_rows(net)), torch_net.tensor(x)
        return lambda: function(tensor)

    def in_numpy() -> Call:
        function = numpy_net.dense_rows(net)
        return lambda: function(x)

    def in_numba() -> Call:
        function = numba_net.dense_rows(net)
        return lambda: function(x)

    exact = net.astype(np.float64)
    hidden = np.tanh(x.astype(np.float64) @ exact.w1.T + exact.b1)
    return Contest(
        case=f"dense net 256-8-1, features -> y, batch {batch:,}, rows first (B, I)",
        ours=lambda: traced(params, placed),
        peers={"numpy": in_numpy, "numba": in_numba, "torch": in_torch},
        oracle=np.tanh(hidden @ exact.w2.T + exact.b2)[:, 0],
        bound=f"matrix product: {2 * batch * net.w1.size / 1e6:.0f} MFLOP",
    )


def oracle(net: SparseWeights, features: np.ndarray) -> np.ndarray:
    """float64 outputs (b,) of a one-output net over float64 features (b, i), in NumPy."""
    exact: np.ndarray = numpy_net.sparse_rows_plain(net.astype("float64"))(features)[:, 0]
    return exact


def _features(batch: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (batch, FEATURES)).astype(np.float32)


def _work_bound(net: SparseWeights, batch: int, machine: Machine, features_first: bool) -> str:
    """Bytes that must be read: whole columns features first, whole cache lines of each row otherwise."""
    columns = np.unique(net.indices)
    lines = len(np.unique(columns * _FLOAT_BYTES // _CACHE_LINE))
    nbytes = batch * (len(columns) * _FLOAT_BYTES if features_first else lines * _CACHE_LINE)
    return machine.work_bound(nbytes, batch * (net.w1.shape[0] + net.w2.shape[0]))


def _column_bound(net: SparseWeights, batch: int, machine: Machine) -> str:
    columns = len(np.unique(net.indices))
    return f"{batch * columns:,} column values (sines mostly); " + machine.work_bound(
        2 * batch * _FLOAT_BYTES, batch * (net.w1.shape[0] + net.w2.shape[0])
    )
