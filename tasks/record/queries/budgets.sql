-- What each cut of a run or of a sweep was to remove of a cost of the blocks, and what it did.
FROM cuts SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY recorded_at, run
