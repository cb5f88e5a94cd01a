-- The inputs that the models of a run or of a sweep read in part.
FROM sparse_inputs SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block, linears
