"""Benchmarks: kernels, layers, training steps and inference, beside PyTorch; `minifcn bench` shows them.

Nothing is timed before it is proven right, PyTorch's side too. The contestants take turns, round by round, one process
working at a time; what is claimed is the median over rounds of the ratio within the round, with its 95 % interval.
How figures are made and read stands in `docs/benchmarks.md`.

    work        what is computed: one convolution, or one network; its floating-point operations and bytes
    inputs      its data, the same numbers on both sides
    gate        the proof: float64, poisoned memory, unchanged inputs, the same bits twice
    rounds      the turns; quiet: both sides at rest between them
    statistics  medians, intervals, verdicts
    ceilings    what the machine can do, before and after; machine: what it is
    convolutions, networks   one row of a table: gate, rounds, result
    peer, torch_peer         the other process, and PyTorch in it
    memory, waterfall        peak memory of each side alone; where the time of a step goes
    record, tables, plots, readme   what is stored, and everything that is made from it
"""
