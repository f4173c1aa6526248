"""Vectors rounded to 16 bits, as float32 numbers: what an index that stores them so can know."""

import numpy as np

from largede.errors import DataError


def rounded(vector_ND: np.ndarray, kind: str) -> np.ndarray:
    """Float32 vectors as an index of this kind holds them. Raises DataError for numbers that float16 cannot hold."""
    if kind == "flat-bf16":
        return to_bfloat16(vector_ND)
    if kind == "flat-fp16":
        if np.abs(vector_ND).max(initial=0.0) > np.finfo(np.float16).max:
            raise DataError(
                "vectors with numbers above 65,504",
                expected="numbers that float16 can hold",
                mend="use --index flat-bf16 or flat",
            )
        return vector_ND.astype(np.float16).astype(np.float32)
    return vector_ND


def to_bfloat16(vector_ND: np.ndarray) -> np.ndarray:
    """The nearest numbers whose last 16 bits are zero; ties go to the even one."""
    bits = np.ascontiguousarray(vector_ND, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)
