-- The policies of a run by floor, what was looked up in the episodes before what was answered live.
SELECT * EXCLUDE (place) FROM (SELECT *, row_number() OVER () AS place FROM controllers WHERE run = $run)
ORDER BY floor, live, place
