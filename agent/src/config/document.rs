//! The default file, with its documentation: what `firstfin serve --print-default-config` prints.

use std::fmt::Write as _;

use super::{Config, DEFAULT_PATH};

/// The default file. It says nothing else than an empty one.
#[must_use]
pub fn document() -> String {
    let mut text = format!(
        "# Configuration of `firstfin serve`, read from {DEFAULT_PATH} unless --config names another file.\n\
         # Every key is shown with its default. Each can also be set by `--set SECTION.KEY=VALUE`, or by the environment\n\
         # variable that is named with it; the command line beats the environment, and that beats this file.\n\
         # SIGHUP has it read again. `firstfin serve --check-config` says what is wrong with it.\n"
    );
    for section in Config::SECTIONS {
        text.push('\n');
        comment(&mut text, section.docs);
        let _ = writeln!(text, "[{}]", section.name);
        for key in section.keys {
            text.push('\n');
            comment(&mut text, key.docs);
            let restart = if key.needs_restart { ". A new value takes a restart" } else { "" };
            let _ = writeln!(text, "# ({}{restart})\n{} = {}", key.variable(), key.name, key.default);
        }
    }
    text
}

fn comment(text: &mut String, docs: &[&str]) {
    for line in docs {
        // A doc comment has the space that it is written with.
        let _ = writeln!(text, "#{line}");
    }
}
