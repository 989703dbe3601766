"""How a group leaves: why it must end, which one goes first, how it drains, and when its pods may go."""
