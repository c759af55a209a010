"""Deterministic kernel templates behind one contract (`compilers.kernels.base`)."""
