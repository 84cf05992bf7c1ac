"""Which kernels of the library run which parts of a Relax function."""
