-- The products that a run, or those of a sweep, could run on: each shape once.
SELECT in_features, out_features, dropped, dtype, product, threads, tokens, any_value(dense_ms) AS dense_ms,
    any_value(sparse_ms) AS sparse_ms, any_value(sparse) AS sparse
FROM products SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
GROUP BY ALL
ORDER BY in_features, out_features, dropped, dtype, product, threads, tokens
