"""Numbers in few bits: the formats of ggml, affine codes, and products with them."""

from sparsejax.ops.quantized.affine import AffineTensor
from sparsejax.ops.quantized.decode import decode
from sparsejax.ops.quantized.encode import encode
from sparsejax.ops.quantized.ffn import QuantizedFFN, sparse_quantized_ffn
from sparsejax.ops.quantized.formats import FORMATS, BlockFormat
from sparsejax.ops.quantized.matmul import quantized_matmul
from sparsejax.ops.quantized.planes import ROW_TILE
from sparsejax.ops.quantized.tensor import QuantizedTensor

__all__ = [
    "FORMATS",
    "AffineTensor",
    "ROW_TILE",
    "BlockFormat",
    "QuantizedFFN",
    "QuantizedTensor",
    "decode",
    "encode",
    "quantized_matmul",
    "sparse_quantized_ffn",
]
