"""What makes the scores of a finished map high, patch by patch."""
