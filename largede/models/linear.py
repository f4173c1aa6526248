"""Linear layers of a model that only embeds, on a CPU: oneDNN's products in place of torch's own choice.

torch multiplies float32 matrices on x86 by MKL, which knows how to use Intel's processors only: on AMD's its products
take more than twice the time of oneDNN's, which torch carries as well. bfloat16 goes through oneDNN anyway; there it is
the layout of the weights, made once instead of at every call, that is gained.
"""

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: the same sums, added up in another order. The weights cannot be read back."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        # No parameter: its layout is oneDNN's own, which can be neither moved to a GPU nor saved.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    @torch.compiler.disable
    def forward(self, state: Tensor) -> Tensor:
        """(..., out_features) of (..., in_features)."""
        packed: Tensor = torch.ops.mkldnn._linear_pointwise(state, self.weight, self.bias, "none", [], "")
        return packed


def can_pack(linear: nn.Module) -> bool:
    """Whether it is a linear layer on a CPU for which oneDNN has products that are as fast as torch's own or faster."""
    # A subclass does something of its own.
    if type(linear) is not nn.Linear or linear.weight.device.type != "cpu":
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available():
        return False
    # With less than AVX2, oneDNN's float32 takes twice the time of MKL's.
    has_avx2 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    has_bf16 = linear.weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return has_avx2 and (linear.weight.dtype == torch.float32 or has_bf16)


def pack_linears(module: nn.Module) -> None:
    """Replace those linear layers within `module` that can be packed; one by one, so that memory does not double."""
    for name in [name for name, child in module.named_modules() if can_pack(child)]:
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        module.set_submodule(name, PackedLinear(linear))
