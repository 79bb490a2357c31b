"""The Dirichlet process mixture (DPMM) of embeddings."""
