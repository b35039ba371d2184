// The tables. A migration that was in a release is never changed: a later one is added.

import Foundation
import GRDB
import Licensing

enum Migrations {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1 customers to ledger") { database in
            for statement in first { try database.execute(sql: statement) }
        }
        migrator.registerMigration("2 restorations") { database in try database.execute(sql: restorations) }
        migrator.registerMigration("3 keys of units") { database in
            for statement in unitKeys { try database.execute(sql: statement) }
        }
        migrator.registerMigration("3a ends of leases that nobody has acknowledged") { database in
            try database.execute(sql: "ALTER TABLE license ADD COLUMN held_until INTEGER NOT NULL DEFAULT 0")
        }
        migrator.registerMigration(keyedLedger) { database in
            for statement in rowsWithMAC { try database.execute(sql: statement) }
            try Ledger.takeIn(by: SystemUser.current, at: Timestamp.seconds(Date()), in: database)
        }
        return migrator
    }

    /// Rows are told of as the types of today read them: who adds a column later gives it to them in a migration before this
    /// one.
    static let keyedLedger = "4 the ledger's key"

    private static let rowsWithMAC = [
        "ALTER TABLE answer ADD COLUMN mac BLOB NOT NULL DEFAULT x''",
        "UPDATE answer SET mac = ledger_mac(unit_id, idempotency_key, question, status, body, at)",
        "ALTER TABLE usage_report ADD COLUMN mac BLOB NOT NULL DEFAULT x''",
        "UPDATE usage_report SET mac = ledger_mac(license_id, at, body)",
    ]

    private static let unitKeys = [
        "ALTER TABLE license ADD COLUMN unit_key TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE license ADD COLUMN held_epoch INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE license ADD COLUMN asked_at INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE license ADD COLUMN cloned_by TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE license ADD COLUMN cloned_at INTEGER",
        // Which epoch a unit of before holds it says with its next question: any number of answers may have been lost.
        "UPDATE license SET held_epoch = -1",
    ]

    private static let restorations = """
        CREATE TABLE restoration (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            -- Of the last entry in the backup's ledger: what was done later is lost.
            backup_at INTEGER NOT NULL,
            -- Until then no unit gets a first licence.
            holds_until INTEGER NOT NULL
        ) STRICT
        """

    /// Times are seconds since 1970. STRICT: a column holds what its type says and nothing else.
    private static let first = [
        """
        CREATE TABLE customer (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            -- SHA-256 of the secret half of the account key.
            account_key_hash BLOB NOT NULL CHECK (length(account_key_hash) = 32)
        ) STRICT
        """,
        """
        CREATE TABLE subscription (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            customer_id INTEGER NOT NULL REFERENCES customer (id),
            plan TEXT NOT NULL CHECK (plan IN ('monthly', 'annual')),
            paid_until INTEGER NOT NULL,
            units INTEGER NOT NULL CHECK (units > 0),
            seats_furl INTEGER NOT NULL, seats_fnbi INTEGER NOT NULL, seats_fcas INTEGER NOT NULL,
            model_max_furl INTEGER NOT NULL, model_max_fnbi INTEGER NOT NULL, model_max_fcas INTEGER NOT NULL,
            sessions_per_seat INTEGER NOT NULL,
            bandwidth INTEGER NOT NULL,
            business_type TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX subscription_customer ON subscription (customer_id)",
        """
        CREATE TABLE license (
            id TEXT PRIMARY KEY,
            subscription_id INTEGER NOT NULL REFERENCES subscription (id),
            unit_id TEXT NOT NULL,
            issuer_type TEXT NOT NULL CHECK (issuer_type IN ('automatic', 'offline')),
            state TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'cancelled')),
            epoch INTEGER NOT NULL,
            issued_at INTEGER NOT NULL,
            lease_expiry INTEGER NOT NULL,
            -- The machine that it is for.
            cpu_model TEXT NOT NULL, logical_cpus_number INTEGER NOT NULL, total_memory_size INTEGER NOT NULL,
            address_ipv4 TEXT NOT NULL
        ) STRICT
        """,
        "CREATE UNIQUE INDEX license_unit ON license (unit_id) WHERE state <> 'cancelled'",
        "CREATE INDEX license_every_unit ON license (unit_id)",
        "CREATE INDEX license_subscription ON license (subscription_id)",
        """
        CREATE TABLE hardware_assignment (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            license_id TEXT NOT NULL REFERENCES license (id),
            at INTEGER NOT NULL,
            hardware TEXT NOT NULL,
            -- first: of a new licence; accepted: without a person; held: waits; approved: by a person;
            -- withdrawn: was held, and the unit came back as it had been.
            state TEXT NOT NULL CHECK (state IN ('first', 'accepted', 'held', 'approved', 'withdrawn')),
            reason TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX hardware_license ON hardware_assignment (license_id, state, at)",
        "CREATE UNIQUE INDEX hardware_held ON hardware_assignment (license_id) WHERE state = 'held'",
        """
        CREATE TABLE answer (
            unit_id TEXT NOT NULL,
            idempotency_key TEXT NOT NULL,
            -- SHA-256 of the question.
            question BLOB NOT NULL,
            status INTEGER NOT NULL,
            body BLOB NOT NULL,
            at INTEGER NOT NULL,
            PRIMARY KEY (unit_id, idempotency_key)
        ) STRICT
        """,
        "CREATE INDEX answer_at ON answer (at)",
        """
        CREATE TABLE usage_report (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            license_id TEXT NOT NULL REFERENCES license (id),
            at INTEGER NOT NULL,
            body TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX usage_license ON usage_report (license_id, id)",
        """
        CREATE TABLE signing_key (
            kid TEXT PRIMARY KEY,
            pem TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            signs_from INTEGER NOT NULL,
            retired_at INTEGER
        ) STRICT
        """,
        """
        CREATE TABLE ledger (
            seq INTEGER PRIMARY KEY,
            at INTEGER NOT NULL,
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            body TEXT NOT NULL,
            previous BLOB NOT NULL,
            hash BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """,
        """
        CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """,
    ]
}
