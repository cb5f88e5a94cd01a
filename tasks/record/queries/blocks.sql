-- The pruned blocks of a run or of a sweep.
SELECT run, method, pattern, block, sparsity, error, seconds
FROM blocks SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block
