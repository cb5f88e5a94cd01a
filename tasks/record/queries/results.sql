-- Every evaluated model of a run or of a sweep ($run): the dense one once per text, then the pruned ones, the smaller
-- sparsity first and then the lower perplexity. `best` marks the lowest perplexity wherever several models pruned to one
-- pattern (how its zeros were chosen, after the @, apart) were evaluated on one text. Of weights with factors `sparsity`
-- counts the sparse parts beside them: in their sum nothing is zero.
WITH scope AS (
    SELECT run, seconds FROM runs WHERE run = $run OR sweep = $run
), factored AS (
    SELECT
        run, 'pruned' AS subject, sum(zeros) / sum(out_features * in_features) AS sparsity,
        min(rank) FILTER (rank > 0) AS least_rank, max(rank) AS largest_rank
    FROM linears GROUP BY run HAVING largest_rank > 0
), evaluated AS (
    SELECT
        evaluations.* REPLACE (coalesce(factored.sparsity, evaluations.sparsity) AS sparsity),
        seconds, least_rank, largest_rank
    FROM evaluations JOIN scope USING (run) LEFT JOIN factored USING (run, subject)
    QUALIFY subject <> 'dense'
        OR row_number() OVER (PARTITION BY subject, model_hash, source, "window" ORDER BY recorded_at, run) = 1
), timed AS (
    SELECT run, subject, phase, tokens_per_s, ratio, ratio_low, ratio_high, verdict, device, sparse_linears
    FROM speeds
    QUALIFY row_number() OVER (PARTITION BY run, subject, phase ORDER BY batch, tokens) = 1
)
SELECT
    run, flow, model, model_hash, subject, method, pattern, seed, source, dataset_hash, "window", windows, tokens,
    nll, ppl, bits_per_byte, sparsity, least_rank, largest_rank, parameters, size_bytes, memory_bytes, kv_bytes, seconds,
    checkpoint,
    prefill.tokens_per_s AS prefill_tokens_per_s, prefill.ratio AS prefill_ratio,
    prefill.ratio_low AS prefill_low, prefill.ratio_high AS prefill_high, prefill.verdict AS prefill_verdict,
    decode.tokens_per_s AS decode_tokens_per_s, decode.ratio AS decode_ratio,
    decode.ratio_low AS decode_low, decode.ratio_high AS decode_high, decode.verdict AS decode_verdict,
    prefill.device AS timed_on, prefill.sparse_linears,
    subject <> 'dense' AND count(*) OVER same_pattern > 1 AND rank() OVER (same_pattern ORDER BY ppl) = 1 AS best
FROM evaluated
LEFT JOIN (FROM timed WHERE phase = 'prefill') AS prefill USING (run, subject)
LEFT JOIN (FROM timed WHERE phase = 'decode') AS decode USING (run, subject)
WINDOW same_pattern AS (PARTITION BY subject = 'dense', model_hash, source, "window", split_part(pattern, '@', 1))
ORDER BY
    model, model_hash, source, "window", subject <> 'dense', round(100 * sparsity), split_part(pattern, '@', 1), ppl, run
