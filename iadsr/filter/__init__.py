"""Raw interactions -> duplicates, k-core, time order, split, planted noise: the sequences of all later stages."""
