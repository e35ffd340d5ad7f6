"""Measurements: of the shipped generators' quality, and of speed side by side with what a user would write."""
