-- The blocks of the cut models of a run or of a sweep.
FROM slices SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block
