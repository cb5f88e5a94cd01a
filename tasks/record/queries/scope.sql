-- The runs that $run names: the run itself, or all runs of the sweep, in the order in which they ended.
FROM runs WHERE run = $run OR sweep = $run ORDER BY recorded_at, run
