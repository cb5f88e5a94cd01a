-- The pruned linears of a run or of a sweep.
FROM linears SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block, linear
