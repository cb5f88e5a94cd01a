-- The inputs that the models of a run or of a sweep read in part, those of a block in the order in which they are read.
SELECT sparse_inputs.*
FROM (SELECT *, row_number() OVER () AS place FROM sparse_inputs) AS sparse_inputs
SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, place
