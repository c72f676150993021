"""A model and its data -> trained weights, history, verdicts; resumable to the byte."""
