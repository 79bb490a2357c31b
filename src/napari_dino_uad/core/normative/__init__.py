"""What normal means: one file per model."""
