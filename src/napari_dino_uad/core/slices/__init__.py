"""A `Volume` becomes network input."""
