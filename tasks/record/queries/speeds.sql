-- The speeds of the pruned models of a run or of a sweep, against the dense model timed beside each.
SELECT run, method, pattern, phase, batch, tokens, repetitions, latency_ms, tokens_per_s, ratio, ratio_low, ratio_high, verdict
FROM speeds SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
WHERE subject <> 'dense'
ORDER BY method, pattern, run, phase DESC, subject, batch, tokens
