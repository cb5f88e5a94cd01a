-- The moves of the searches of a run or of a sweep.
FROM searches SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, move
