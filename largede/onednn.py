"""Where oneDNN, which torch carries, is to multiply matrices on a CPU.

torch multiplies float32 by MKL, which makes full use of Intel's processors only, and numpy by OpenBLAS: on AMD's
processors with AVX-512 they take about twice the time of oneDNN.
"""

import torch


def has_products(dtype: torch.dtype) -> bool:
    """Whether its products of this kind of numbers are there, and as fast as other libraries' or faster."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # With less than AVX2, it takes twice the time of MKL.
    return dtype == torch.float32 and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def keeps_float32() -> bool:
    """Whether float32 stays float32: whoever imports us may have let torch compute with fewer bits."""
    asked = [torch.get_float32_matmul_precision()]
    for settings in (torch.backends, torch.backends.mkldnn, getattr(torch.backends.mkldnn, "matmul", None)):
        asked.append(getattr(settings, "fp32_precision", "none"))
    return all(precision in ("highest", "none", "ieee") for precision in asked)
