"""Linear layers of a model that only embeds, on a CPU: oneDNN's products in place of torch's own choice.

bfloat16 goes through oneDNN anyway; there it is the layout of the weights, made once instead of at every call, that is
gained.
"""

import torch
from torch import Tensor, nn

from largede.onednn import has_products


class OneDnnLinear(nn.Module):
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
        product: Tensor = torch.ops.mkldnn._linear_pointwise(state, self.weight, self.bias, "none", [], "")
        return product


def has_onednn_form(linear: nn.Module) -> bool:
    """Whether it is a linear layer on a CPU, of numbers that oneDNN multiplies."""
    # A subclass does something of its own.
    return type(linear) is nn.Linear and linear.weight.device.type == "cpu" and has_products(linear.weight.dtype)


def use_onednn(module: nn.Module) -> None:
    """Let the linear layers within `module` multiply by oneDNN; one by one, so that memory does not double."""
    for name in [name for name, child in module.named_modules() if has_onednn_form(child)]:
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        module.set_submodule(name, OneDnnLinear(linear))
