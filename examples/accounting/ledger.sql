-- The ledger: an event is an entry, an entry is some postings that add up to nothing.
CREATE TABLE entries (
    event_id uuid PRIMARY KEY,
    event_type text NOT NULL,
    broker text NOT NULL,
    account_id text NOT NULL,
    exec_id text NOT NULL,
    charge_id text,
    reverses_exec_id text,
    position_id bigint NOT NULL,
    symbol text NOT NULL,
    side text NOT NULL,
    quantity numeric NOT NULL,
    cash_amount numeric NOT NULL,
    commission numeric NOT NULL,
    fees numeric NOT NULL,
    net_amount numeric NOT NULL,
    currency text NOT NULL,
    occurred_at timestamptz NOT NULL,
    booked_at timestamptz NOT NULL DEFAULT now()
);
-- Whatever the event id: an execution enters once, is taken back once, and is charged once by one charge.
CREATE UNIQUE INDEX entered_once ON entries (broker, account_id, exec_id)
    WHERE event_type IN ('EXECUTION_RECORDED', 'EXECUTION_CORRECTED');
CREATE UNIQUE INDEX reversed_once ON entries (broker, account_id, reverses_exec_id)
    WHERE event_type = 'EXECUTION_REVERSED';
CREATE UNIQUE INDEX charged_once ON entries (broker, account_id, charge_id, exec_id)
    WHERE event_type = 'EXECUTION_CHARGED';

CREATE TABLE postings (
    event_id uuid NOT NULL REFERENCES entries,
    account text NOT NULL,
    currency text NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (event_id, account)
);
CREATE FUNCTION check_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT sum(amount) FROM postings WHERE event_id = NEW.event_id) <> 0 THEN
        RAISE EXCEPTION 'the postings of event % do not add up to 0', NEW.event_id;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT OR UPDATE ON postings DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_balanced();

-- Adds an event as an entry with its postings, once; returns why not where the books have another one in its place.
CREATE FUNCTION book(event jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    e entries := jsonb_populate_record(NULL::entries, event || jsonb_build_object('booked_at', now()));
    known numeric;
BEGIN
    INSERT INTO entries SELECT e.* ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT net_amount INTO known FROM entries WHERE event_id = e.event_id;
        RETURN CASE WHEN known IS NULL THEN concat('another event has booked the ', e.event_type, ' of ', e.exec_id)
                    WHEN known <> e.net_amount THEN concat('event ', e.event_id, ' is in the books with ', known) END;
    END IF;
    INSERT INTO postings
    SELECT e.event_id, l.account, e.currency, l.amount
    FROM (VALUES ('cash:' || e.account_id, e.net_amount), ('commission:' || e.account_id, e.commission),
                 ('fees:' || e.account_id, e.fees),
                 ('positions:' || e.account_id || ':' || e.symbol, -e.cash_amount)) AS l (account, amount)
    WHERE l.amount <> 0;
    RETURN NULL;
END $$;

-- How far each partition is booked, committed with what was booked: Kafka's own offsets are for show.
CREATE TABLE offsets (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE FUNCTION pass(topic text, partition integer, next_offset bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO offsets VALUES ($1, $2, $3)
    ON CONFLICT ON CONSTRAINT offsets_pkey DO UPDATE SET next_offset = GREATEST(offsets.next_offset, $3)
$$;

-- What is not booked although it could be read: values of a newer writer (`retry` books them), and contradictions.
CREATE TABLE set_aside (
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    error_class text NOT NULL,
    reason text NOT NULL,
    value bytea NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    booked_at timestamptz,
    PRIMARY KEY (topic, partition, "offset")
);

CREATE VIEW waiting AS
    SELECT topic, partition, "offset", value FROM set_aside
    WHERE booked_at IS NULL AND error_class = 'unknown_value' ORDER BY set_aside_at, topic, partition, "offset";
CREATE FUNCTION booked(topic text, partition integer, "offset" bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE set_aside s SET booked_at = now() WHERE (s.topic, s.partition, s."offset") = ($1, $2, $3)
$$;

CREATE VIEW trial_balance AS
    SELECT currency, account, sum(amount) AS amount FROM postings GROUP BY currency, account ORDER BY currency, account;

-- What must not be: none of it, and the books are right.
CREATE VIEW wrong AS
    SELECT 'the postings in ' || currency || ' add up to ' || sum(amount) AS what
    FROM postings GROUP BY currency HAVING sum(amount) <> 0
    UNION ALL
    SELECT 'event ' || e.event_id || ' has a net amount of ' || e.net_amount || ', its cash posting is '
           || COALESCE(p.amount, 0)
    FROM entries e LEFT JOIN postings p ON p.event_id = e.event_id AND p.account = 'cash:' || e.account_id
    WHERE e.net_amount <> COALESCE(p.amount, 0)
    UNION ALL
    -- A reversal takes back the entry, and what was charged for it later with the execution's own id.
    SELECT 'event ' || r.event_id || ' takes back ' || -r.net_amount || ' of execution ' || r.reverses_exec_id
           || ', of which ' || COALESCE(sum(e.net_amount)::text, 'nothing') || ' is in the books'
    FROM entries r LEFT JOIN entries e
        ON (e.broker, e.account_id, e.exec_id) = (r.broker, r.account_id, r.reverses_exec_id)
        AND (e.event_type IN ('EXECUTION_RECORDED', 'EXECUTION_CORRECTED')
             OR (e.event_type = 'EXECUTION_CHARGED' AND e.charge_id = e.exec_id))
    WHERE r.event_type = 'EXECUTION_REVERSED'
    GROUP BY r.event_id HAVING COALESCE(sum(e.net_amount), 0) <> -r.net_amount
    UNION ALL
    SELECT topic || '/' || partition || '/' || "offset" || ' is set aside: ' || error_class || ': ' || reason
    FROM set_aside WHERE booked_at IS NULL;
