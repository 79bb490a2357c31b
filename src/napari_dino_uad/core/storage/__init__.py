"""Files written whole, and believed only after they are checked."""
