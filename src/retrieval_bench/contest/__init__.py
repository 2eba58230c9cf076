"""The top-k kernel against its peers, on one machine in one run: `python -m benchmark.kernel`.

`shapes` what is searched; `rivals` who searches; `agreement` whether they found the same; `peaks` what the machine can
do; `race` the measurement; `targets` what is asked of the kernel; `report` and `plot` what is shown.
"""
