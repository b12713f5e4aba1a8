"""The graph's machinery: embeddings, packed batches, tables for scoring, session, optimizers."""
