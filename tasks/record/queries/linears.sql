-- The pruned linears of a run or of a sweep.
SELECT run, method, pattern, block, linear, out_features, in_features, zeros, sparsity, error, seconds
FROM linears SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block, linear
