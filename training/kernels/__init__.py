"""Kernels compiled from C++ for CPUs, each with a torch form that computes the same."""
