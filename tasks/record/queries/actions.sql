-- What each action did to the prompts of a run: those of each source, and of all of them (`source` is null there).
SELECT
    action, source, count(*) AS prompts, avg(ratio) AS ratio,
    quantile_cont(ratio, 0.05) AS ratio_low, quantile_cont(ratio, 0.95) AS ratio_high,
    avg(rise) AS rise, max(rise) AS worst_rise, avg(kl) AS kl,
    median(tokens_per_s) AS tokens_per_s, median(switch_ms) AS switch_ms, median(decode_ms) AS decode_ms,
    avg(cache_bytes) AS cache_bytes, max(memory_bytes) AS memory_bytes
FROM (SELECT *, row_number() OVER () AS place FROM episodes WHERE run = $run) AS episodes
JOIN (SELECT prompt, source FROM prompts WHERE run = $run) AS prompts USING (prompt)
GROUP BY GROUPING SETS ((action), (action, source))
ORDER BY source IS NOT NULL, source, min(place)
