"""Networks: their weights, preprocessing, pooling, faster inference, and what is learned after them.

Changing the weights of a network belongs in `training`, except for `convnet`, which learns inside a run.
"""

from retrieval_bench.extractors.deep import (
    convnet,
    efficientnet_lite,
    exported,
    network_features,
    own_network,
    pairs,
    timm_open_clip,
)

__all__ = ["convnet", "efficientnet_lite", "exported", "network_features", "own_network", "pairs", "timm_open_clip"]
