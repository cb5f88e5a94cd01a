-- Every evaluated model of a run or of a sweep ($run): the dense one once per text, then the pruned ones, the smaller
-- sparsity first and then the lower perplexity. Of weights with factors `sparsity` counts the sparse parts beside them:
-- in their sum nothing is zero.
-- `best` marks the lowest perplexity wherever several models of one pattern (how its zeros were chosen, after the @,
-- apart) are `compared` on one text. A pattern of some linears alone, or net of what is read besides, drops less:
-- compared are those that drop what it asks for, or as much as any, to within 0.015; those with factors, which have the bytes of the
-- pattern and not its zeros, where as many weights were pruned as in any; and cut models all.
WITH scope AS (
    SELECT run, seconds FROM runs WHERE run = $run OR sweep = $run
), weighed AS (
    SELECT
        run, 'pruned' AS subject, sum(out_features * in_features) AS weights, sum(zeros) / weights AS sparsity,
        min(rank) FILTER (rank > 0) AS least_rank, max(rank) FILTER (rank > 0) AS largest_rank
    FROM linears GROUP BY run
), evaluated AS (
    SELECT
        evaluations.* REPLACE (if(largest_rank > 0, weighed.sparsity, evaluations.sparsity) AS sparsity),
        seconds, weights, least_rank, largest_rank,
        coalesce(parameters < max(parameters) FILTER (subject = 'dense') OVER same_text, false) AS cut
    FROM evaluations JOIN scope USING (run) LEFT JOIN weighed USING (run, subject)
    WINDOW same_text AS (PARTITION BY model_hash, source, "window")
    QUALIFY subject <> 'dense'
        OR row_number() OVER (PARTITION BY subject, model_hash, source, "window" ORDER BY recorded_at, run) = 1
), held AS (
    SELECT
        *,
        subject <> 'dense' AND CASE
            WHEN cut THEN true
            WHEN largest_rank > 0 THEN weights >= max(weights) OVER same_pattern
            ELSE sparsity >= least(
                max(sparsity) FILTER (NOT cut AND largest_rank IS NULL) OVER same_pattern,
                coalesce(
                    1 - try_cast(split_part(pattern, ':', 1) AS DOUBLE) / try_cast(split_part(pattern, ':', 2) AS DOUBLE),
                    try_cast(split_part(pattern, '%', 1) AS DOUBLE) / 100
                )
            ) - 0.015
        END AS compared
    FROM evaluated
    WINDOW same_pattern AS (PARTITION BY subject = 'dense', model_hash, source, "window", split_part(pattern, '@', 1))
), timed AS (
    SELECT run, subject, phase, tokens_per_s, ratio, ratio_low, ratio_high, verdict, device, sparse_linears
    FROM speeds
    QUALIFY row_number() OVER (PARTITION BY run, subject, phase ORDER BY batch, tokens) = 1
)
SELECT
    run, flow, model, model_hash, subject, method, pattern, seed, source, dataset_hash, "window", windows, tokens,
    nll, ppl, bits_per_byte, sparsity, least_rank, largest_rank, parameters, size_bytes, memory_bytes, kv_bytes,
    removed_flops, seconds, checkpoint,
    prefill.tokens_per_s AS prefill_tokens_per_s, prefill.ratio AS prefill_ratio,
    prefill.ratio_low AS prefill_low, prefill.ratio_high AS prefill_high, prefill.verdict AS prefill_verdict,
    decode.tokens_per_s AS decode_tokens_per_s, decode.ratio AS decode_ratio,
    decode.ratio_low AS decode_low, decode.ratio_high AS decode_high, decode.verdict AS decode_verdict,
    prefill.device AS timed_on, prefill.sparse_linears,
    compared, compared AND count(*) OVER same_pattern > 1 AND rank() OVER (same_pattern ORDER BY ppl) = 1 AS best
FROM held
LEFT JOIN (SELECT run, 'pruned' AS subject, removed_flops FROM cuts) USING (run, subject)
LEFT JOIN (FROM timed WHERE phase = 'prefill') AS prefill USING (run, subject)
LEFT JOIN (FROM timed WHERE phase = 'decode') AS decode USING (run, subject)
WINDOW same_pattern AS (PARTITION BY compared, model_hash, source, "window", split_part(pattern, '@', 1))
ORDER BY
    model, model_hash, source, "window", subject <> 'dense', round(100 * sparsity), split_part(pattern, '@', 1), ppl, run
