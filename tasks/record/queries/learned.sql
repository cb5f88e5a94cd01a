-- What mitigations have learned, block by block, in a run or in those of a sweep.
FROM learned SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block
