"""DIN with Dice in place of the two sigmoids of its last MLP; all else, attention's sigmoids too, is model.py's."""
from din.dice import dice
from din.model import Model as Din


class Model(Din):
    """DIN with Dice activations."""

    activation = staticmethod(dice)
