"""What a recipe will need on a machine, before anything runs: memory by kind, time, days, and which knob to turn.

`predict(recipe, machine)` is pure arithmetic on the recipe, the DeepSpeed file it names and the shape of its model; it
imports neither torch nor DeepSpeed.
"""

from largede.training.plan.machine import Machine
from largede.training.plan.predict import Plan, predict

__all__ = ["Machine", "Plan", "predict"]
