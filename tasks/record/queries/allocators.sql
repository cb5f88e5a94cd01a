-- How each search of a run or of a sweep went, and what its allocation loses.
FROM allocators SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run
