//! `firstfin serve`: watch for good.

use std::env;

use crate::{
    cli::{Global, Serve},
    config::{self, Override, Problem, Source, document},
    output, serve,
};

pub(super) fn run(global: &Global, args: &Serve) -> anyhow::Result<()> {
    if args.print_default_config {
        return Ok(output::write_stdout(document())?);
    }
    let source = source(global, args).map_err(config::ConfigError::from)?;
    let config = config::read(&source)?;
    if args.check_config {
        return Ok(output::write_stdout("the configuration is fine\n")?);
    }
    serve::run(config, source)
}

/// The file, and what beats it: the environment, and the flags before that.
fn source(global: &Global, args: &Serve) -> Result<Source, Problem> {
    let mut overrides = Override::environment(|variable| env::var_os(variable))?;
    let given = global.given;
    if given.ring_size {
        overrides.push(Override::flag("--ring-size", "observe", "ring_size", i64::from(global.ring_size)));
    }
    if given.max_sockets {
        overrides.push(Override::flag("--max-sockets", "observe", "max_sockets", i64::from(global.max_sockets)));
    }
    if given.max_rung {
        overrides.push(Override::flag("--max-rung", "observe", "max_rung", global.max_rung.rung().name()));
    }
    if let Some(listen) = args.listen {
        overrides.push(Override::flag("--listen", "http", "listen", listen.to_string()));
    }
    if let Some(interval) = &args.interval {
        overrides.push(Override::flag("--interval", "observe", "interval", interval.as_str()));
    }
    if let Some(top) = args.top {
        overrides.push(Override::flag("--top", "metrics", "top", i64::from(top)));
    }
    for text in &args.set {
        overrides.push(Override::assignment("--set", text)?);
    }
    Ok(Source { file: args.config.clone(), overrides })
}
