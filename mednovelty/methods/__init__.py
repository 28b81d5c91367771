"""One file a paper, read top to bottom like the paper."""
