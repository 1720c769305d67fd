"""Fuzzing of everything that reads a file: mutations, sample files, readers, child processes."""
