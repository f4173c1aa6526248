"""An Adafactor that lets a test see the gradients it was stepped with."""

from typing import Any

from torch import Tensor

from largede.training.adafactor import ZeroAdafactor


class Recording(ZeroAdafactor):
    """Adafactor that also keeps each slice's gradient."""

    def bind(self, groups: Any) -> None:
        super().bind(groups)
        self.gradients: dict[str, tuple[Any, Tensor]] = {}

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                bound = self._bound[id(parameter)].group
                for held in bound.slices:
                    self.gradients[held.name] = (held, held.of(bound.gradient).clone())
        super().step(closure)
