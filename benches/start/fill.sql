-- Fills a new store (schema 8) with 1,000 pools of one lock, 1,000,000 history entries of them (claimed, released, ...) and
-- 1,000,000 claims that have ended, two of each build. Of every second build nobody knows that it is over.
--
--     locker server --store sqlite:big.db      # makes it; end it with ^C
--     sqlite3 big.db < benches/start/fill.sql

BEGIN;
CREATE TEMP TABLE numbers (n INTEGER PRIMARY KEY);
WITH RECURSIVE count (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM count WHERE n < 999999)
    INSERT INTO numbers SELECT n FROM count;
CREATE TEMP TABLE start AS SELECT
    (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'revision') AS revision,
    CAST(strftime('%s', 'now') AS INTEGER) * 1000 - 100000000 AS wall;

INSERT INTO pools SELECT format('pool-%03d', n), '{}' FROM numbers WHERE n < 1000;
INSERT INTO locks SELECT format('pool-%03d', n), '1', x'', '{"labels":{},"leaving":false}' FROM numbers WHERE n < 1000;

-- Each claim is in two entries: 1,000 of each pool.
INSERT INTO changes SELECT revision + 1 + n, 0, format(
    '{"at":%d,"kind":"%s","pools":["pool-%03d"],"locks":[["pool-%03d","1"]],"claim":"%s","who":{"cluster":"https://ci.example.org","team":"main","pipeline":"deploy","job":"migrate","build_id":"%d","build_name":"%d","build_url":"https://ci.example.org/builds/%d"}%s}',
    wall + n * 80, iif(n % 2, 'released', 'claimed'), n / 2 % 1000, n / 2 % 1000, lower(hex(randomblob(20))), n / 4, n / 4,
    n / 4, iif(n % 2, ',"end":"released","held":60000', ',"waited":1000')
) FROM numbers, start;

-- The engine has run for 80,000 s; one claim ended each 80 ms. Those of builds that may go on are remembered for 90 days.
INSERT INTO ended SELECT lower(hex(randomblob(20))), 'released',
    n * 80 + iif(n / 2 % 2, 7776000000, 86400000), iif(n / 2 % 2, 7776000000, 86400000),
    'https://ci.example.org', n / 2, format(
    '{"life":1,"digest":"%s","runs":["%s"],"at":%d,"revision":%d,"fence":%d}',
    lower(hex(randomblob(32))), lower(hex(randomblob(16))), wall + n * 80, revision + 1 + n, revision + n
) FROM numbers, start;

UPDATE meta SET value = (SELECT revision + 1000001 FROM start) WHERE key = 'revision';
UPDATE meta SET value = 80000000 WHERE key = 'engine';
COMMIT;
