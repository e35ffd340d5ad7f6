"""Training images as they are found: which kind a file or folder is, and what it holds."""
