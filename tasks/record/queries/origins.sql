-- The latest run that has stored the artifact $content, and what it began with.
SELECT run, runs.model, runs.model_hash, runs.method, runs.pattern, runs.seed, parameters
FROM runs SEMI JOIN (FROM artifacts WHERE hash = $content) USING (run)
ORDER BY recorded_at DESC, run LIMIT 1
