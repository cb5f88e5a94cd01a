-- The blocks, attentions and FFNs that the cut models of a run or of a sweep lost whole.
FROM removals SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block, kind
