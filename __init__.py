"""graphwright: a compiler for Transformers about to be deployed."""
