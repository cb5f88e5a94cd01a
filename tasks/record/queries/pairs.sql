-- What the runs $a and $b measured of the same part of one dense model, on the same calibration text: a line a part.
SELECT 'error of linears' AS what, first.error AS a, second.error AS b
FROM linears AS first JOIN linears AS second USING (model_hash, dataset_hash, block, linear, error_from)
WHERE first.run = $a AND second.run = $b
UNION ALL
SELECT 'error of blocks', first.error, second.error
FROM blocks AS first JOIN blocks AS second USING (model_hash, dataset_hash, block)
WHERE first.run = $a AND second.run = $b
UNION ALL
SELECT 'error of cut blocks', first.cut_error, second.cut_error
FROM slices AS first JOIN slices AS second USING (model_hash, dataset_hash, block)
WHERE first.run = $a AND second.run = $b
UNION ALL
SELECT 'error of repaired blocks', first.repaired_error, second.repaired_error
FROM slices AS first JOIN slices AS second USING (model_hash, dataset_hash, block)
WHERE first.run = $a AND second.run = $b
