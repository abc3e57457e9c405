"""Bench: every timing beside the limit that was measured in the same run."""
