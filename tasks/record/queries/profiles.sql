-- The profiles of a run or of a sweep, each beside the model itself, "none".
SELECT profiles.*, whole.parameters AS whole_parameters
FROM (SELECT *, row_number() OVER () AS place FROM profiles) AS profiles
JOIN (SELECT run, parameters FROM profiles WHERE profile = 'none') AS whole USING (run)
SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY run, place
