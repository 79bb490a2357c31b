"""Scores compared with lesion masks: metrics, their intervals, failures, and results on disk."""
