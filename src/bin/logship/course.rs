//! What the course asks, as tables: its files and their functions, the quests' requirements and grades.

/// One of the course's files.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) week: &'static str,
    pub(crate) name: &'static str,
    /// What a lesson says that it defines. Where students write one of several names, they stand in one string.
    pub(crate) functions: &'static [&'static str],
    /// The structs that go in and out of it.
    pub(crate) structs: &'static [&'static str],
}

const STORE: &[&str] = &["kv_entry", "kv_store"];
const STORE_AND_RECORD: &[&str] = &["kv_entry", "kv_store", "wal_record"];
const NODES: &[&str] = &["repl_node", "replication_config", "repl_ack"];
const ALL: &[&str] =
    &["kv_entry", "kv_store", "wal_record", "wal_writer", "repl_node", "replication_config", "repl_ack"];

pub(crate) const FILES: [File; 11] = [
    File {
        week: "w09",
        name: "kv_store.c",
        functions: &["kv_store_init", "kv_store_set", "kv_store_get", "kv_store_del", "kv_store_destroy"],
        structs: STORE,
    },
    File { week: "w10", name: "crc32.c", functions: &["logship_crc32"], structs: &[] },
    File {
        week: "w10",
        name: "wal_record.c",
        functions: &["wal_record_encode", "wal_record_decode"],
        structs: &["wal_record"],
    },
    File {
        week: "w10",
        name: "wal_writer.c",
        functions: &["wal_open wal_open_path", "wal_append", "wal_close"],
        structs: &["wal_writer", "wal_record"],
    },
    File { week: "w10", name: "wal_recovery.c", functions: &["wal_recover"], structs: STORE_AND_RECORD },
    File {
        week: "w10",
        name: "wal_checkpoint.c",
        functions: &["wal_checkpoint_write wal_checkpoint", "wal_checkpoint_load", "wal_recover_with_checkpoint"],
        structs: STORE_AND_RECORD,
    },
    File { week: "w11", name: "repl_config.c", functions: &["repl_connect"], structs: NODES },
    File { week: "w11", name: "repl_ship.c", functions: &["repl_ship_record", "repl_receive_record"], structs: ALL },
    File { week: "w11", name: "repl_quorum.c", functions: &["repl_wait_quorum"], structs: NODES },
    File { week: "w11", name: "repl_conflict.c", functions: &["repl_resolve_conflict"], structs: &[] },
    File { week: "w11", name: "repl_rejoin.c", functions: &["repl_follower_rejoin", "repl_catch_up"], structs: ALL },
];

/// Whose name is it?
pub(crate) fn file(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

/// A requirement of a quest.
#[derive(Debug)]
pub(crate) struct Requirement {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
}

pub(crate) const REQUIREMENTS: [Requirement; 18] = [
    Requirement { id: "W09", title: "the store that the logs are replayed into" },
    Requirement { id: "W10-R1", title: "codec round trip; a flipped bit is CRC_MISMATCH" },
    Requirement { id: "W10-R2", title: "append-only, an fsync per record, size = sum of the records" },
    Requirement { id: "W10-R3", title: "full recovery" },
    Requirement { id: "W10-R4", title: "the three crash scenarios" },
    Requirement { id: "W10-R5", title: "checkpoint write and load" },
    Requirement { id: "W10-R6", title: "recovery with checkpoint" },
    Requirement { id: "W10-R7", title: "harness 6/6" },
    Requirement { id: "W10-R8", title: "no leak, no undefined behaviour (valgrind)" },
    Requirement { id: "W11-R1", title: "connection and heartbeat" },
    Requirement { id: "W11-R2", title: "shipping to all online followers" },
    Requirement { id: "W11-R3", title: "CRC check on receive: a flipped bit is rejected" },
    Requirement { id: "W11-R4", title: "quorum before OK" },
    Requirement { id: "W11-R5", title: "last writer wins, with tie-break" },
    Requirement { id: "W11-R6", title: "failure detection: keepalive and the online flag" },
    Requirement { id: "W11-R7", title: "rejoin with catch-up from the last LSN" },
    Requirement { id: "W11-R8", title: "harness 6/6" },
    Requirement { id: "W11-R9", title: "no leak, no undefined behaviour (valgrind)" },
];

/// The requirement that the whole tree's checks under valgrind decide, and the checks, by their requirement.
pub(crate) const UNDER_VALGRIND: [(&str, &str); 2] = [("W10-R8", "W10-R7"), ("W11-R9", "W11-R8")];
/// The requirement that the submission's own test_harness.sh decides too, and its lesson.
pub(crate) const OWN_HARNESS: [(&str, &str); 2] = [("W10-R7", "w10-l06"), ("W11-R8", "w11-l06")];

/// A quest: what each grade takes besides the grade before it.
pub(crate) struct Quest {
    pub(crate) name: &'static str,
    pub(crate) grades: [(&'static str, &'static [&'static str]); 3],
}

pub(crate) const QUESTS: [Quest; 2] = [
    Quest {
        name: "W10",
        grades: [
            ("Pass", &["W10-R1", "W10-R2", "W10-R3"]),
            ("Merit", &["W10-R4", "W10-R5"]),
            ("Distinction", &["W10-R6", "W10-R7", "W10-R8"]),
        ],
    },
    Quest {
        name: "W11",
        grades: [
            ("Pass", &["W11-R1", "W11-R2", "W11-R3"]),
            ("Merit", &["W11-R4", "W11-R5", "W11-R6"]),
            ("Distinction", &["W11-R7", "W11-R8", "W11-R9"]),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_of_a_quest_is_in_one_grade() {
        let graded: Vec<&str> =
            QUESTS.iter().flat_map(|quest| quest.grades.iter().flat_map(|(_, needs)| needs.iter().copied())).collect();
        let all: Vec<&str> = REQUIREMENTS.iter().map(|requirement| requirement.id).filter(|id| *id != "W09").collect();
        assert_eq!(graded, all);
    }
}
