-- What a run came of and what it left. $named is its id, or a version: of the runs that made its bytes, the first.
SELECT
    run, flow, model, model_hash, method, pattern, seed, command, parameters, versions, machine, recorded_at,
    registered_version,
    (SELECT map_from_entries(list((role || ' ' || source, dataset_hash) ORDER BY role, source))
        FROM datasets WHERE run = runs.run) AS texts,
    (SELECT map_from_entries(list((stage, code) ORDER BY stage)) FROM stages WHERE run = runs.run AND code IS NOT NULL)
        AS code,
    (SELECT map_from_entries(list((if(place > 1, kind || ' ' || place, kind), hash) ORDER BY kind, place)) FROM (
        SELECT *, row_number() OVER (PARTITION BY run, kind ORDER BY hash) AS place FROM artifacts
    ) WHERE run = runs.run) AS contents
FROM runs
WHERE run = $named OR registered_version = $named
ORDER BY run <> $named, recorded_at, run LIMIT 1
