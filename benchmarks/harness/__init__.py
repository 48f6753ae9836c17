"""What the benchmarks share: clicks, workers in processes of their own, rounds of timings, and the gates."""
