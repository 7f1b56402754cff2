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

/// logship(1), or logship-grade(1).
pub(crate) fn man(subcommand: Option<&str>) -> Result<(), String> {
    let mut command = Cli::command();
    command.build();
    let command = match subcommand {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name).ok_or_else(|| format!("no subcommand {name}"))?;
            found.clone().name(format!("logship-{name}"))
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).map_err(|error| error.to_string())?;
    print(&text)
}
