"""Reader and writer against real torch, bit for bit, both ways."""

from __future__ import annotations

import copy
import pathlib
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import UnsafePickleError, UnsupportedTensorError
from sparsejax.checkpoint.torch_format.torch_types import (
    DTYPES,
    STORAGE_DTYPES,
    TorchDevice,
    TorchDtype,
    TorchSize,
)
from tests import golden
from tests.checkpoint import torch_forge as forge

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

FORMATS = [(True, 2), (True, 3), (True, 4), (True, 5), (False, 2), (False, 4), (False, 5)]


@pytest.fixture
def torch():
    import torch

    torch.set_num_threads(1)
    return torch


def bits(tensor) -> bytes:
    """The elements of a tensor in row-major order, as torch itself gives them."""
    import torch

    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def agree(found, expected, spot: str = "obj") -> None:
    """Asserts that what we read is what torch holds."""
    import torch

    if isinstance(expected, torch.Tensor):
        assert isinstance(found, np.ndarray), spot
        assert found.shape == tuple(expected.shape), spot
        assert found.dtype == DTYPES[str(expected.dtype).removeprefix("torch.")], spot
        assert found.tobytes() == bits(expected), spot
    elif isinstance(expected, torch.Size):
        assert type(found) is TorchSize and tuple(found) == tuple(expected), spot
    elif isinstance(expected, torch.device | torch.dtype):
        assert type(found) is (TorchDevice if isinstance(expected, torch.device) else TorchDtype), spot
        assert found == str(expected), spot
    elif isinstance(expected, dict):
        assert list(found) == list(expected), spot
        assert type(found) is type(expected) or type(found) is dict, spot
        for key in expected:
            agree(found[key], expected[key], f"{spot}[{key!r}]")
        agree(getattr(found, "_metadata", None), getattr(expected, "_metadata", None), spot)
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected) and len(found) == len(expected), spot
        for index, item in enumerate(expected):
            agree(found[index], item, f"{spot}[{index}]")
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes(), spot
    elif isinstance(expected, pathlib.PurePath):
        assert type(found) is str and found == str(expected), spot
    else:
        assert type(found) is type(expected), spot
        assert found == expected or repr(found) == repr(expected), spot


def saved(torch, obj, path, zipped: bool = True, protocol: int = 2):
    torch.save(obj, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return torch_file.read(path)


# what torch writes


@pytest.mark.parametrize("zipped, protocol", FORMATS)
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(torch, tmp_path, name, zipped, protocol):
    dtype = getattr(torch, name)
    raw = torch.arange(0, 16 * 8, dtype=torch.int32).to(torch.uint8)
    raw = raw % 2 if name == "bool" else raw
    tensor = raw.view(dtype)[: 4 * 2].reshape(4, 2).clone()
    obj = {"w": tensor, "t": tensor.T, "0d": tensor[0, 0], "empty": tensor[:0], "part": tensor[1:3, 1]}
    agree(saved(torch, obj, tmp_path / "m.pt", zipped, protocol), obj)


@pytest.mark.parametrize("zipped, protocol", FORMATS)
def test_views(torch, tmp_path, zipped, protocol):
    base = torch.arange(120.0).reshape(4, 5, 6)
    obj = {
        "offset": base[1:],
        "steps": base[::2, ::3, 1::2],
        "turned": base.permute(2, 0, 1),
        "expanded": base[:, :1, :].expand(4, 3, 6),
        "diagonal": base[0].diagonal(),
        "scalar": base[3, 4, 5],
        "empty": base[4:],
        "window": base.reshape(-1).unfold(0, 10, 5),
        "tied": base,
        "again": base,
    }
    found = saved(torch, obj, tmp_path / "m.pt", zipped, protocol)
    agree(found, obj)
    assert found["tied"] is found["again"]
    assert np.shares_memory(found["tied"], found["diagonal"])
    opened = torch_file.open_file(tmp_path / "m.pt").tree
    assert {key: ref.strides for key, ref in opened.items()} == {
        key: tensor.stride() for key, tensor in obj.items()
    }
    for key, ref in opened.items():
        agree(ref.view(), obj[key], key)


@pytest.mark.parametrize("zipped, protocol", FORMATS)
def test_python_values_and_nesting(torch, tmp_path, zipped, protocol):
    obj = OrderedDict(
        nested={"list": [torch.ones(2), ({1, 2}, "x")], 3: {"deep": [[[]]]}},
        numbers=[0, -1, 2**70, 0.1, float("inf"), 1 + 2j, True, None, b"\0\xff", "é"],
        size=torch.Size([2, 3]),
        device=[torch.device("cpu"), torch.device("cuda", 3)],
        dtypes=[torch.float32, torch.bfloat16, torch.int64],
        numpy=[
            np.float64(1.5),
            np.int32(4),
            np.arange(5),
            np.ones((2, 3), order="F"),
            np.dtype("f4"),
            np.bool_(True),
        ],
        path=pathlib.Path("runs") / "a.pt",
        pure=pathlib.PureWindowsPath("C:/a"),
    )
    agree(saved(torch, obj, tmp_path / "m.pt", zipped, protocol), obj)


def test_parameters_and_attributes(torch, tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    tagged = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    tagged.tag = "x"
    attributed = torch.zeros(2)
    attributed.tag = 3
    grad = torch.ones(4, requires_grad=True)
    obj = [parameter, tagged, attributed, grad, torch.nn.ParameterDict({"a": parameter}).state_dict()]
    agree(saved(torch, obj, tmp_path / "m.pt"), obj)
    refs = torch_file.open_file(tmp_path / "m.pt").tree[:4]
    assert [(ref.is_parameter, ref.requires_grad) for ref in refs] == [
        (True, True),
        (True, False),
        (False, False),
        (False, True),
    ]


def test_conjugate_and_negative_views(torch, tmp_path):
    z = torch.complex(torch.arange(3.0), torch.ones(3))
    obj = {"conj": z.conj(), "neg": z.clone().conj().imag, "plain": z, "wide": z.to(torch.complex128).conj()}
    agree(saved(torch, obj, tmp_path / "m.pt"), obj)


def test_bare_storages(torch, tmp_path):
    obj = [torch.arange(3.0).untyped_storage(), torch.arange(4, dtype=torch.int16).storage()]
    found = saved(torch, obj, tmp_path / "m.pt")
    assert found[0].tobytes() == np.arange(3, dtype=np.float32).tobytes()
    np.testing.assert_array_equal(found[1], np.arange(4, dtype=np.int16))


def network(torch):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)]
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("zipped, protocol", FORMATS)
def test_training_checkpoint(torch, tmp_path, zipped, protocol):
    """State dicts of a module, its optimisers and its schedules after three steps."""
    model = network(torch)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)
    schedulers = {
        "one_cycle": torch.optim.lr_scheduler.OneCycleLR(adam, 0.01, total_steps=10),
        "steps": torch.optim.lr_scheduler.MultiStepLR(sgd, [1, 2, 2]),
        "plateau": torch.optim.lr_scheduler.ReduceLROnPlateau(sgd),
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 10),
        "lambda": torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 0.9**step),
        "warm": torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(sgd, 3),
    }
    for _ in range(3):
        loss = model(torch.randn(5, 3)).square().mean()
        loss.backward()
        for optimizer in (sgd, adam):
            optimizer.step()
        for name, scheduler in schedulers.items():
            scheduler.step(*([float(loss)] if name == "plateau" else []))
    obj = {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizers": [sgd.state_dict(), adam.state_dict()],
        "schedulers": {name: scheduler.state_dict() for name, scheduler in schedulers.items()},
        "rng": torch.get_rng_state(),
        "path": tmp_path,
    }
    found = saved(torch, obj, tmp_path / "m.pt", zipped, protocol)
    agree(found, obj)
    assert found["model_state_dict"]._metadata == model.state_dict()._metadata


def test_files_without_checksums(torch, tmp_path):
    """What `set_crc32_options(False)` writes: zeros in every field, as the reader assumes."""
    obj = {"w": torch.randn(100)}
    torch.serialization.set_crc32_options(False)
    try:
        found = saved(torch, obj, tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    agree(found, obj)
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        assert {info.CRC for info in archive.infolist()} == {0}
    torch.save(obj, tmp_path / "m.pt")
    assert forge.without_checksums((tmp_path / "m.pt").read_bytes()).count(struct.pack("<L", 0)) > 0
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        assert all(info.CRC for info in archive.infolist())


@pytest.mark.parametrize("name", list(STORAGE_DTYPES.values()))
def test_big_endian_file_as_torch_reads_it(torch, tmp_path, name):
    dtype = getattr(torch, name)
    raw = torch.arange(96, dtype=torch.uint8)
    tensor = (raw % 2 if name == "bool" else raw).view(dtype).clone()
    torch.save({"w": tensor, "t": tensor.reshape(2, -1).T}, tmp_path / "little.pt")
    records = forge.unpack(tmp_path / "little.pt")
    (tmp_path / "big.pt").write_bytes(forge.pack(records | {"little/byteorder": b"big"}))
    expected = torch.load(tmp_path / "big.pt", weights_only=True)
    agree(torch_file.read(tmp_path / "big.pt"), expected)
    if tensor.element_size() > 1:
        assert bits(expected["w"]) != bits(tensor)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda torch: torch.eye(3).to_sparse(), "sparse"),
        (lambda torch: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda torch: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
        (lambda torch: torch.ones(2, device="meta"), "meta"),
        (lambda torch: torch.ones(2, dtype=torch.complex32), "complex32"),
        (lambda torch: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_numpy_cannot_hold(torch, tmp_path, make, reason, zipped):
    torch.save({"x": make(torch)}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsupportedTensorError, match=reason):
        torch_file.read(tmp_path / "m.pt")


def test_whole_modules_and_torchscript_are_refused(torch, tmp_path):
    torch.save(network(torch), tmp_path / "module.pt")
    with pytest.raises(UnsafePickleError, match="state_dict"):
        torch_file.read(tmp_path / "module.pt")
    torch.save(network(torch), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafePickleError):
        torch_file.read(tmp_path / "old.pt")
    torch.jit.save(torch.jit.trace(network(torch).eval(), torch.ones(1, 3)), tmp_path / "script.pt")
    with pytest.raises(UnsupportedTensorError, match="TorchScript"):
        torch_file.read(tmp_path / "script.pt")


@golden.needs_golden
@pytest.mark.parametrize("family", ["ultra_sparse", "sprout", "ten", "force_field", "sparse_inference"])
def test_golden_files(torch, family):
    for path in sorted((golden.ROOT / family).glob("*.pt")):
        with torch.serialization.safe_globals([pathlib.PosixPath]):
            expected = torch.load(path, weights_only=True)
        agree(torch_file.read(path), expected)


# what we write


@pytest.fixture
def written(torch, tmp_path):
    def run(obj, **options):
        torch_file.write(obj, tmp_path / "out.pt")
        return torch.load(tmp_path / "out.pt", weights_only=True, **options)

    return run


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", DTYPES)
def test_torch_loads_every_dtype_we_write(torch, written, name, mapped):
    raw = np.arange(64, dtype=np.uint8) % (2 if name == "bool" else 255)
    array = raw.view(DTYPES[name]).reshape(-1, 2)
    obj = {
        "w": array,
        "t": array.T,
        "row": array[1],
        "lone": array.copy()[1:, 1],
        "0d": array[:1, :1].reshape(()),
        "e": array[:0].copy(),
    }
    found = written(obj, mmap=mapped)
    for key, tensor in found.items():
        assert tensor.dtype == getattr(torch, name)
        agree(obj[key], tensor, key)
    assert found["w"].untyped_storage().data_ptr() == found["t"].untyped_storage().data_ptr()


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_loads_every_value_we_write(torch, written, mapped):
    state = OrderedDict(w=np.ones(2, np.float32))
    state._metadata = OrderedDict({"": {"version": 1}})
    shared = [1]
    obj = {
        "state": state,
        "numbers": [0, 255, 65536, -1, 2**31, -(2**70), 2**2038, 0.1, float("nan"), 1 + 2j, True, None],
        "text": ["", "é\U0001f600", b"", b"\0\xff"],
        "sets": {1, "a"},
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "size": TorchSize((2, 3)),
        "device": TorchDevice("cuda:1"),
        "dtype": TorchDtype("torch.float8_e5m2"),
        "shared": [shared, shared],
        (1, "k"): {2: 3},
        "many": list(range(2500)),
    }
    found = written(copy.deepcopy(obj) | {"state": state}, mmap=mapped)
    assert found["size"] == torch.Size([2, 3]) and type(found["size"]) is torch.Size
    assert found["device"] == torch.device("cuda:1") and found["dtype"] is torch.float8_e5m2
    assert found["state"]._metadata == state._metadata
    assert found["shared"][0] is found["shared"][1]
    agree({key: obj[key] for key in obj}, {key: found[key] for key in obj})


def test_torch_keeps_ties_and_shared_storages_of_ours(torch, written):
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = written({"a": w, "tied": w, "view": w[1:], "bits": w.view(np.int32), "other": w.copy()})
    assert found["a"] is found["tied"]
    places = {key: tensor.untyped_storage().data_ptr() for key, tensor in found.items()}
    assert len({places[key] for key in ("a", "tied", "view", "bits")}) == 1
    assert places["other"] != places["a"]
    found["a"][1, 0] = 99
    assert found["view"][0, 0] == 99
    agree(w.view(np.int32)[2:], found["bits"][2:])


def test_state_dict_goes_there_and_back(torch, tmp_path):
    """torch -> our reader -> our writer -> torch, loaded into a fresh module."""
    model = network(torch)
    model[0].bias = torch.nn.Parameter(model[0].bias.to(torch.bfloat16))
    torch.save(model.state_dict(), tmp_path / "in.pt")
    torch_file.write(torch_file.read(tmp_path / "in.pt"), tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)
    assert back._metadata == model.state_dict()._metadata
    fresh = network(torch)
    fresh.load_state_dict(back)
    for key, tensor in model.state_dict().items():
        assert torch.equal(back[key], tensor) and back[key].dtype == tensor.dtype


@golden.needs_golden
@pytest.mark.parametrize("family", ["ultra_sparse", "sprout", "ten", "force_field"])
def test_golden_files_rewritten_are_the_same_to_torch(torch, tmp_path, family):
    for path in sorted((golden.ROOT / family).glob("*.pt")):
        torch_file.write(torch_file.read(path), tmp_path / "out.pt")
        back = torch.load(tmp_path / "out.pt", weights_only=True, mmap=True)
        agree(torch_file.read(path), back)


def test_bfloat16_values_not_only_bits(torch, written):
    found = written(
        {
            "w": np.array([1.5, -2, 3e38], ml_dtypes.bfloat16),
            "f": np.array([1.5, -2], ml_dtypes.float8_e4m3fn),
        }
    )
    assert found["w"].tolist() == [1.5, -2.0, float(torch.tensor(3e38, dtype=torch.bfloat16))]
    assert found["f"].to(torch.float32).tolist() == [1.5, -2.0]


@pytest.mark.slow
def test_zip64_record_beyond_four_gigabytes(torch, tmp_path):
    """A storage of more than 2^32 bytes: both readers find its last element."""
    path = tmp_path / "huge.pt"
    huge = np.zeros((1 << 32) + 8, np.uint8)
    huge[-1] = 7
    try:
        torch_file.write({"huge": huge, "after": np.arange(3)}, path)
        tree = torch_file.open_file(path).tree
        assert tree["huge"].view()[-1] == 7
        assert tree["after"].view().tolist() == [0, 1, 2]
        back = torch.load(path, weights_only=True, mmap=True)
        assert back["huge"][-1] == 7 and back["after"].tolist() == [0, 1, 2]
    finally:
        path.unlink(missing_ok=True)
