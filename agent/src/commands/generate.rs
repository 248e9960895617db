//! `firstfin generate`: what the program can say about itself, as files.
//!
//! Manual pages, shell completions, JSON Schemas and the command-line reference are made from the definitions the
//! program runs on, so they cannot say something else. The same program always writes the same bytes: no date, no path.
//! Hidden commands are left out of all of them.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};

use crate::{
    cli::{Cli, EXIT_STATUS},
    config, history,
    metrics::catalogue,
    output::lines::EventRecord,
    report::Report,
    what_if,
    why::Answer,
};

/// Writes everything into `folder`, which is made if it is not there.
///
/// # Errors
/// Those of the file system.
pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    let command = documented();
    let name = command.get_name().to_owned();

    let man = make(&folder.join("man"))?;
    clap_mangen::generate_to(command.clone(), &man)
        .with_context(|| format!("write manual pages to {}", man.display()))?;

    let completions = make(&folder.join("completions"))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command.clone(), &name, &completions)
            .with_context(|| format!("write the completions for {shell} to {}", completions.display()))?;
    }

    write(folder, "report.schema.json", &pretty(&schemars::schema_for!(Report))?)?;
    write(folder, "event.schema.json", &pretty(&schemars::schema_for!(EventRecord<'static>))?)?;
    write(folder, "why.schema.json", &pretty(&schemars::schema_for!(Answer))?)?;
    write(folder, "what-if.schema.json", &pretty(&schemars::schema_for!(what_if::Answer))?)?;
    write(folder, "firstfin.toml", &config::document())?;
    write(folder, "metrics.md", &catalogue::reference())?;
    write(folder, "history.schema.json", &pretty(&schemars::schema_for!(history::Answer))?)?;
    write(folder, "cli.md", &reference(command))
}

/// The command line without what is hidden. clap has no way to take a subcommand out, so the rest is put together anew.
fn documented() -> Command {
    let full = Cli::command();
    let mut command = Command::new("firstfin").after_help(EXIT_STATUS);
    command = command.version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = full.get_about() {
        command = command.about(about.clone());
    }
    if let Some(about) = full.get_long_about() {
        command = command.long_about(about.clone());
    }
    command
        .subcommand_required(true)
        .args(full.get_arguments().cloned())
        .subcommands(full.get_subcommands().filter(|it| !it.is_hide_set()).cloned())
}

fn make(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder.to_path_buf())
}

fn write(folder: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, content).with_context(|| format!("write {}", path.display()))
}

fn pretty(schema: &schemars::Schema) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(schema).context("write a JSON Schema")?;
    text.push('\n');
    Ok(text)
}

/// The command-line reference, in Markdown.
fn reference(mut command: Command) -> String {
    command.build();
    let mut text =
        String::from("# The command line\n\nMade by `cargo xtask docs` from the program's own definitions.\n");
    section(&mut text, &command);
    for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
        section(&mut text, subcommand);
    }
    let (_, statuses) = EXIT_STATUS.split_once('\n').unwrap_or_default();
    text.push_str("\n## Exit status\n\n| status | meaning |\n|---|---|\n");
    for line in statuses.lines() {
        let (status, meaning) = line.trim().split_once("  ").unwrap_or_default();
        let _ = writeln!(text, "| {status} | {} |", cell(meaning));
    }
    text
}

fn section(text: &mut String, command: &Command) {
    let mut command = command.clone();
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let _ = write!(text, "\n## {name}\n\n```text\n{usage}\n```\n");
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = write!(text, "\n{about}\n");
    }
    let is_root = command.has_subcommands();
    let subcommands: Vec<_> = command.get_subcommands().filter(|it| it.get_name() != "help").collect();
    if !subcommands.is_empty() {
        text.push_str("\n| command | |\n|---|---|\n");
        for subcommand in subcommands {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "| [`{0}`](#{1}-{0}) | {2} |", subcommand.get_name(), name, cell(&about));
        }
    }
    // The options of every command are said once.
    let arguments: Vec<_> = command.get_arguments().filter(|it| !it.is_hide_set()).collect();
    let arguments: Vec<_> =
        arguments.into_iter().filter(|it| is_root || !(it.is_global_set() || is_help(it))).collect();
    if arguments.is_empty() {
        return;
    }
    text.push_str("\n| option | meaning | default |\n|---|---|---|\n");
    for argument in arguments {
        let _ =
            writeln!(text, "| `{}` | {} | {} |", cell(&form(argument)), cell(&meaning(argument)), default(argument));
    }
}

fn is_help(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// `-v, --verbose`, `--duration <TIME>`
fn form(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let value = match argument.get_value_names() {
        Some([name, ..]) if argument.get_action().takes_values() => format!(" <{name}>"),
        _ => String::new(),
    };
    format!("{}{value}", names.join(", "))
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = match argument.get_action().takes_values() {
        true => argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect(),
        false => Vec::new(),
    };
    match values.is_empty() {
        true => help,
        false => format!("{help}\n\nOne of {}.", values.join(", ")),
    }
}

fn default(argument: &Arg) -> String {
    let values: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    match argument.get_action().takes_values() && !values.is_empty() {
        true => format!("`{}`", values.join(" ")),
        false => String::new(),
    }
}

/// Text as it can stand in a cell of a Markdown table.
fn cell(text: &str) -> String {
    let paragraphs: Vec<_> = text.split("\n\n").map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    paragraphs.join("<br>").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_commands_are_left_out_and_no_other() {
        let all: Vec<_> = Cli::command().get_subcommands().map(|it| it.get_name().to_owned()).collect();
        let shown: Vec<_> = documented().get_subcommands().map(|it| it.get_name().to_owned()).collect();
        assert_eq!(
            shown,
            ["doctor", "why", "trace", "report", "top", "record", "replay", "what-if", "serve", "history", "demo"]
        );
        assert_eq!(all.len(), shown.len() + 2);
    }

    #[test]
    fn the_reference_names_every_option_that_shows() {
        let text = reference(documented());
        for command in documented().get_subcommands() {
            assert!(text.contains(&format!("## firstfin {}\n", command.get_name())), "{text}");
            for long in command.get_arguments().filter(|it| !it.is_hide_set()).filter_map(Arg::get_long) {
                assert!(text.contains(&format!("--{long}")), "--{long} is missing");
            }
        }
        assert!(text.contains("--ring-size <BYTES>"));
        assert_eq!(text.matches("`--color <WHEN>`").count(), 1);
        assert!(text.contains("| 2 | could not run"));
        assert!(!text.contains("demo-role"));
    }

    #[test]
    fn a_cell_stays_a_cell() {
        assert_eq!(cell("a\nb | c\n\nd"), "a b \\| c<br>d");
    }
}
