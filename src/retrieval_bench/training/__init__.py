"""`train`: from the name of a network and a split to a file of weights; learns from train and nothing else.

The loop itself belongs in `training_loop`, which `convnet` uses too.
"""
