"""Records and trainings for trackers of experiments: MLflow and TensorBoard.

Files for other programs that no tracker reads belong in `records`; networks for other programs in `exporting`.
"""
