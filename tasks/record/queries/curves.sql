-- The curves of a run for MLflow: a name, a value and its step, which is a block, a token or a step of a training.
SELECT 'block_error' AS name, error AS "value", block AS step FROM blocks WHERE run = $run
UNION ALL SELECT 'block_sparsity', sparsity, block FROM blocks WHERE run = $run
UNION ALL SELECT 'cut_error', cut_error, block FROM slices WHERE run = $run
UNION ALL SELECT 'repaired_error', repaired_error, block FROM slices WHERE run = $run
UNION ALL SELECT 'stage_parameters', parameters, sum(tokens) OVER (ORDER BY stage) FROM cut_stages WHERE run = $run
UNION ALL SELECT 'stage_loss', last_loss, sum(tokens) OVER (ORDER BY stage) FROM cut_stages WHERE run = $run
UNION ALL SELECT DISTINCT 'recovery_loss', first_loss, 0 FROM recoveries WHERE run = $run
UNION ALL SELECT DISTINCT 'recovery_loss', last_loss, steps FROM recoveries WHERE run = $run
UNION ALL SELECT 'seconds', seconds, 0 FROM runs WHERE run = $run
ORDER BY name, step
