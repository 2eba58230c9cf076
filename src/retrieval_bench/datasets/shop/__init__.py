"""The studio behind the `products` dataset: draws the goods and photographs them, the same on every machine.

The dataset that is made of them is `datasets.products`.
"""
