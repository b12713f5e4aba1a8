"""DIN with Dice in place of the MLP's two sigmoids; all else is model.py's."""
from din.dice import dice
from din.model import Model as Din


class Model(Din):
    """DIN with Dice activations."""

    activation = staticmethod(dice)
