-- Every stage that was computed, not found again, with what its work depends on; the newest runs first.
SELECT run, flow, stage, stages.seconds, peak_bytes, stages.model_hash, stages.method, stages.pattern, machine,
       size_bytes, calibration_tokens, evaluation_tokens, recovery_tokens
FROM stages
JOIN (SELECT run, recorded_at AS ended_at FROM runs) USING (run)
JOIN (SELECT run, max(size_bytes) AS size_bytes FROM evaluations WHERE subject IN ('dense', 'given') GROUP BY run) USING (run)
LEFT JOIN (SELECT run, sum(tokens) FILTER (WHERE role = 'calibration') AS calibration_tokens,
                  sum(tokens) FILTER (WHERE role = 'evaluation') AS evaluation_tokens,
                  sum(tokens) FILTER (WHERE role = 'recovery') AS recovery_tokens
           FROM datasets GROUP BY run) USING (run)
WHERE NOT cached
ORDER BY ended_at DESC, run
