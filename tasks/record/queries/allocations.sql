-- What goes of each part in the runs of a sweep, or in a run, that searched.
FROM allocations SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block, kind
