-- How much of the repair of each cut of a run or of a sweep was measured, and what was kept.
FROM repairs SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, share
