-- The runs of a flow with their stages in order, and what each left on the disk: a checkpoint, and the registry's copy.
SELECT run, parameters, seconds, evaluations.source AS evaluation, evaluation_tokens, stages, stored_bytes, size_bytes
FROM runs
JOIN (SELECT run, max(size_bytes) AS size_bytes, any_value(source) AS source
      FROM evaluations WHERE subject IN ('dense', 'given') GROUP BY run) AS evaluations USING (run)
JOIN (SELECT run, list(stage ORDER BY place) AS stages
      FROM (SELECT *, row_number() OVER () AS place FROM stages) GROUP BY run) USING (run)
LEFT JOIN (SELECT run, sum(tokens) AS evaluation_tokens FROM datasets WHERE role = 'evaluation' GROUP BY run) USING (run)
LEFT JOIN (SELECT run, sum(size_bytes) + arg_max(size_bytes, kind <> 'checkpoint') AS stored_bytes
           FROM artifacts GROUP BY run) USING (run)
WHERE flow = $flow
ORDER BY recorded_at DESC, run
