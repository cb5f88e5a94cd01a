-- What the allocators of a run or of a sweep that choose among others chose from.
FROM candidates SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, held_out, name
