"""One file at a time: checked to be whole, decoded, and written."""
