"""Deep Interest Network (DIN), and its Dice variant."""
