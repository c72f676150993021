"""Tables -> batches: windows of histories, their text vectors, graphs; what a split may see."""
