"""Close positions through closeflow, each exactly once."""
