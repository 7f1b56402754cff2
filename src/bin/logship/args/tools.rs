//! What may be asked of the tools that look at files: `logship wal ...` and `logship checkpoint ...`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What is the same in each tool's help.
macro_rules! exit_status {
    ($zero:literal, $one:literal) => {
        concat!(
            "Exit status: 0 if ",
            $zero,
            ", 1 if ",
            $one,
            ", 2 if the arguments are wrong, the file can't be read or is no log.\n\n",
            "Keys and values are shown as in a Rust byte string: what is no printable ASCII as \\xNN, \\t, \\n ",
            "or \\r, and the characters ' \" \\ with a \\ before them."
        )
    };
}

/// What `logship wal` can do.
#[derive(Subcommand)]
pub(crate) enum Wal {
    /// Print the records of a log, and those behind damage
    Dump(Dump),
    /// Read a log from its first byte to its last and say whether it is whole
    Verify(Verify),
    /// Drop the records after an LSN; shows what would be lost, and asks
    Truncate(Truncate),
    /// Make a torn or damaged log fit to open again; shows what would be lost, and asks
    Repair(Repair),
}

/// What `logship wal dump` is told.
#[derive(Args)]
#[command(after_help = exit_status!(
    "all that was read is whole",
    "there is damage or a torn end"
))]
pub(crate) struct Dump {
    /// The log
    pub(crate) path: PathBuf,
    /// From this record on
    #[arg(long, value_name = "LSN")]
    pub(crate) from: Option<u64>,
    /// Up to this record
    #[arg(long, value_name = "LSN")]
    pub(crate) to: Option<u64>,
    /// At most so many records
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Show the values too
    #[arg(long)]
    pub(crate) values: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `logship wal verify` is told.
#[derive(Args)]
#[command(after_help = exit_status!("the log is whole", "it is torn or damaged"))]
pub(crate) struct Verify {
    /// The log
    pub(crate) path: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether a change is made, and how that is said.
#[derive(Args, Clone, Copy)]
pub(crate) struct Change {
    /// Do it; without this the command asks if it can, and else only shows what it would do
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print a JSON object, and never ask
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `logship wal truncate` is told.
#[derive(Args)]
#[command(after_help = exit_status!("the log ends with that record now", "nothing was changed: nobody said yes"))]
pub(crate) struct Truncate {
    /// The log
    pub(crate) path: PathBuf,
    /// The last record that stays
    #[arg(long, value_name = "LSN")]
    pub(crate) to: u64,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// What `logship wal repair` is told.
#[derive(Args)]
#[command(after_help = exit_status!("the log is whole now", "nothing was changed: nobody said yes"))]
pub(crate) struct Repair {
    /// The log
    pub(crate) path: PathBuf,
    /// Keep only the records that were known to be durable, not all whole ones before the damage
    #[arg(long)]
    pub(crate) durable: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// What `logship checkpoint` can do.
#[derive(Subcommand)]
pub(crate) enum Checkpoint {
    /// Say what a checkpoint holds, whether it is whole, and whether it fits a log
    Show(Show),
}

/// What `logship checkpoint show` is told.
#[derive(Args)]
#[command(after_help = exit_status!("the checkpoint is whole and fits", "it is damaged or does not fit the log"))]
pub(crate) struct Show {
    /// The checkpoint
    pub(crate) path: PathBuf,
    /// The log that it shall fit
    #[arg(long, value_name = "PATH")]
    pub(crate) wal: Option<PathBuf>,
    /// Print the keys too
    #[arg(long)]
    pub(crate) keys: bool,
    /// Print JSON: an object, and with --keys one more a line for each key
    #[arg(long)]
    pub(crate) json: bool,
}
