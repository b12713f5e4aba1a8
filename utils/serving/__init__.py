"""Trained models at work: scoring, ranking of the catalogue, export, attention shown."""
