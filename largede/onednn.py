"""Where oneDNN, which torch carries, is to multiply matrices on a CPU.

torch multiplies float32 by MKL, which makes full use of Intel's processors only, and numpy by OpenBLAS. What that
costs on a processor of AMD is in the tables of the README (encoding, search) and of evaluation/latency. Processors of
Intel are unmeasured.
"""

import torch


def has_products(dtype: torch.dtype) -> bool:
    """Whether its products of this kind of numbers are there, and as fast as other libraries' or faster."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available():
        return False
    # Held to SSE 4.1 it takes twice the time of MKL, and no processor but those of x86 was tried.
    if not torch._C._get_mkldnn_enabled() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def keeps_float32() -> bool:
    """Whether float32 stays float32: whoever imports us may have let torch compute with fewer bits."""
    places = (torch.backends, torch.backends.mkldnn, getattr(torch.backends.mkldnn, "matmul", None))
    asked = [getattr(place, "fp32_precision", "none") for place in places]
    try:
        asked.append(torch.get_float32_matmul_precision())
    except RuntimeError:  # of the new settings above and this older one, somebody has set both
        return False
    return all(precision in ("highest", "none", "ieee") for precision in asked)
