-- How well importances order units, of a run or of a sweep: equal rows once, however many runs used them.
SELECT DISTINCT importance, kind, units, sampled, correlation
FROM importances SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY importance, kind, units, sampled, correlation
