-- The stages in which the models of a run or of a sweep were cut and trained, each with the tokens trained before it.
SELECT *, coalesce(sum(tokens) OVER (PARTITION BY run ORDER BY stage ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW), 0)
    ::BIGINT AS tokens_before
FROM cut_stages SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, stage
