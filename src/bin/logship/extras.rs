//! What a package needs of the command: completions and manual pages, from the same words as `--help`.

use crate::args::Cli;
use clap::CommandFactory as _;
use std::io::Write as _;

fn print(text: &[u8]) -> Result<(), String> {
    std::io::stdout().write_all(text).map_err(|error| error.to_string())
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), String> {
    let mut text = Vec::new();
    // What is hidden from people is hidden from their shells too.
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).cloned();
    let mut command = clap::Command::new("logship").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
    clap_complete::generate(shell, &mut command, "logship", &mut text);
    print(&text)
}

/// logship(1), logship-grade(1), or logship-wal-dump(1): the words of a subcommand with hyphens between them.
pub(crate) fn man(subcommand: Option<&str>) -> Result<(), String> {
    let mut command = Cli::command();
    command.build();
    let mut found = &command;
    for name in subcommand.into_iter().flat_map(|words| words.split('-')) {
        found = found.find_subcommand(name).ok_or_else(|| format!("no subcommand {name}"))?;
    }
    let page = match subcommand {
        None => found.clone(),
        Some(words) => found.clone().name(format!("logship-{words}")),
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(|error| error.to_string())?;
    print(&text)
}
