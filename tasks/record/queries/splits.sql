-- The ways to divide the budget of each cut of a run or of a sweep between heads and channels.
FROM splits SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, heads_removed, split
