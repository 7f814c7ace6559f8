"""Files of neurons: what is written is read, and what is damaged or shrinks is said, never a crash."""

from __future__ import annotations

import errno
import json
import os
import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    ExportError,
    NotReadableError,
    TruncatedFileError,
)
from sparsejax.models.sparse_inference.store.memory import HostUnits
from sparsejax.models.sparse_inference.store.neuron_file import NeuronFile, write_neurons
from tests.models.sparse_inference.stored_layers import plain_layer, quantized_layer

LAYERS = [plain_layer(bias=True, gated=True), quantized_layer(), plain_layer(5, neurons=6, width=2)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("neurons") / "layers.neurons"
    write_neurons(path, LAYERS)
    return path


def read(source, layer, units):
    planes = source.layouts[layer].planes
    into = [np.empty((len(units), *plane.shape), plane.dtype) for plane in planes]
    source.read(layer, np.asarray(units), into)
    return into


def test_files_give_what_memory_gives(path):
    assert os.listdir(path.parent) == [path.name]
    with NeuronFile(path) as file:
        memory = HostUnits(LAYERS, file.layouts)
        for layer, layout in enumerate(file.layouts):
            several = np.arange(layout.units)[::2]
            for units in ([0], [layout.units - 1], several, np.arange(layout.units), [0, 1, 3]):
                for found, expected in zip(read(file, layer, units), read(memory, layer, units), strict=True):
                    assert np.array_equal(found, expected)
        assert [None if bias is None else bias.tolist() for bias in file.biases] == [
            LAYERS[0].b_out.tolist(),
            None,
            None,
        ]


def test_long_headers_have_room(tmp_path):
    path = tmp_path / "many"
    layers = [plain_layer(number, neurons=2, width=1) for number in range(64)]
    write_neurons(path, layers)
    with NeuronFile(path) as file:
        assert np.array_equal(read(file, 63, [1])[0][0], layers[63].w_in[1:])


def test_shrinking_and_rewritten_files_are_noticed(path, tmp_path):
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    with NeuronFile(copy) as file:
        os.truncate(copy, copy.stat().st_size - 1)
        with pytest.raises(TruncatedFileError, match=r"copy: shrank from \d+ to \d+ bytes"):
            read(file, 0, [0])
    with pytest.raises(TruncatedFileError, match="bytes of"):
        NeuronFile(copy)
    copy.write_bytes(path.read_bytes())
    with NeuronFile(copy) as file:
        os.utime(copy, ns=(1, 1))
        with pytest.raises(CorruptFileError, match="was changed while it was in use; open it again"):
            read(file, 0, [0])
    file.close()
    with pytest.raises(NotReadableError, match="is closed"):
        read(file, 0, [0])


def rewritten(path, change):
    """The file with another header."""
    raw = path.read_bytes()
    (size,) = struct.unpack_from("<I", raw, 12)
    header = json.loads(raw[16 : 16 + size])
    change(header)
    return raw[:16] + json.dumps(header).encode().ljust(size) + raw[16 + size :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h.update(layers=[]), "no list of layers"),
        (lambda h: h.update(layers=3), "no list of layers"),
        (lambda h: h.pop("nbytes"), "nbytes"),
        (lambda h: h["layers"][0].update(offset=1 << 40), "lie outside the file"),
        (lambda h: h["layers"][0].update(offset=-1), "lie outside the file"),
        (lambda h: h["layers"][0].update(offset=2.5), "lie outside the file"),
        (lambda h: h["layers"][1]["layout"].update(neurons=1 << 39), "needs .* bytes, there are"),
        (lambda h: h["layers"][0]["bias"].update(shape=[1 << 40]), "bias of layer 0 has shape"),
        (lambda h: h["layers"][0]["bias"].update(shape=[1 << 30]), "the file has"),
        (lambda h: h["layers"][0]["bias"].update(dtype="O"), "no dtype of weights"),
        (lambda h: h["layers"][0]["bias"].update(offset=-5), "the file has"),
    ],
)
def test_damaged_headers_are_refused(path, tmp_path, change, said):
    bad = tmp_path / "bad"
    bad.write_bytes(rewritten(path, change))
    with pytest.raises(CheckpointError, match=said):
        NeuronFile(bad)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "does not begin with SJNEURON"),
        (b"GGUF" + bytes(40), "does not begin with SJNEURON"),
        (b"SJNEURON\1", "ends inside its first 16 bytes"),
        (b"SJNEURON" + struct.pack("<II", 2, 0), "has version 2; this library reads 1"),
        (b"SJNEURON" + struct.pack("<II", 1, 1 << 31), "the header needs bytes 16 to"),
        (b"SJNEURON" + struct.pack("<II", 1, 2) + b"{]", "the header is damaged"),
        (b"SJNEURON" + struct.pack("<II", 1, 9000) + b"[" * 9000, "the header is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, raw, said):
    bad = tmp_path / "bad"
    bad.write_bytes(raw)
    with pytest.raises(CheckpointError, match=said):
        NeuronFile(bad)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), r"layers.neurons: cannot be read \(Input/output error\)"),
        (None, r"layers.neurons: shrank from \d+ to \d+ bytes while it was in use"),  # after it was looked at
    ],
)
def test_what_fails_while_it_is_read_is_said(path, error, said, monkeypatch):
    def fails(*_):
        if error is not None:
            raise error
        return 0

    with NeuronFile(path) as file:
        monkeypatch.setattr(os, "preadv", fails)
        with pytest.raises(CheckpointError, match=said):
            read(file, 0, [0])


def test_other_machines_do_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(ExportError, match="x: neurons are written by little-endian machines only"):
        write_neurons(tmp_path / "x", LAYERS)


def test_what_is_no_file_is_refused(tmp_path):
    for path, said in ((tmp_path / "none", "cannot be opened"), (tmp_path, "not a regular file")):
        with pytest.raises(NotReadableError, match=said):
            NeuronFile(path)
    with pytest.raises(ExportError, match="cannot be written"):
        write_neurons(tmp_path / "none" / "x", LAYERS)


@given(st.data())
def test_flipped_bytes_of_the_header_never_do_harm(path, tmp_path_factory, data):
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 2500))] = data.draw(st.integers(0, 255))
    bad = tmp_path_factory.getbasetemp() / "flipped"
    bad.write_bytes(bytes(raw[: data.draw(st.sampled_from([None, 3000, 200]))]))
    try:
        with NeuronFile(bad) as file:
            for layer, layout in enumerate(file.layouts):
                read(file, layer, [layout.units - 1])
    except CheckpointError as error:
        assert "flipped" in str(error)
