-- All runs, the latest first, with the dense and the pruned perplexity on the first text of each; of several profiles it
-- is the smallest one's. Of weights with factors `sparsity` counts the sparse parts beside them, as results.sql does.
-- `parameters_left` is the share of the dense model's parameters that the pruned one has.
SELECT
    run, recorded_at, flow, sweep, sweep_points, model, method, pattern, seed, seconds, registered_version, command,
    (SELECT arg_min(ppl, (source, "window")) FROM evaluations WHERE run = runs.run AND subject = 'dense') AS dense_ppl,
    (SELECT arg_min(ppl, (source, parameters, ppl)) FROM evaluations WHERE run = runs.run AND subject <> 'dense') AS ppl,
    coalesce(
        (SELECT sum(zeros) / sum(out_features * in_features) FROM linears WHERE run = runs.run HAVING max(rank) > 0),
        (SELECT arg_min(sparsity, (source, "window")) FROM evaluations WHERE run = runs.run AND subject <> 'dense')
    ) AS sparsity,
    (SELECT arg_min(parameters, (source, parameters)) FROM evaluations WHERE run = runs.run AND subject <> 'dense')
    / (SELECT arg_min(parameters, (source, "window")) FROM evaluations WHERE run = runs.run AND subject = 'dense') AS parameters_left
FROM runs
ORDER BY recorded_at DESC, run
