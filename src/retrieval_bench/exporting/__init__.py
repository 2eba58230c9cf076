"""`export`: a network with its pooling and what was learned after it, as one file that other programs run."""
