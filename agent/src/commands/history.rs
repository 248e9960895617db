//! `firstfin history`: what was seen in the past.

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::{
    cli::{By, Global, History, HistoryFormat, When},
    history::{Filter, Question, Reader},
    output::{self, csv, text},
};

pub(super) fn run(global: &Global, args: &History) -> anyhow::Result<()> {
    let now = Zoned::now();
    let question = question(args, &now)?;
    let reader = Reader::open(&args.database)?;
    let page = match args.format {
        HistoryFormat::Csv => match args.by {
            By::Process => csv::processes(&reader.process_rows(&question)?),
            By::Destination => csv::destinations(&reader.destination_rows(&question)?),
            By::Minute => csv::minutes(&reader.minute_rows(&question)?),
        },
        HistoryFormat::Json => serde_json::to_string_pretty(&reader.answer(&question, now.timestamp())?)? + "\n",
        HistoryFormat::Text => {
            let answer = reader.answer(&question, now.timestamp())?;
            let options = super::report::options(global, usize::from(args.top));
            text::history(&answer, args.by == By::Destination, now.time_zone(), &options)
        }
    };
    Ok(output::write_stdout(&page)?)
}

/// The period asked for. Bad ones are refused with what they were taken for.
fn question(args: &History, now: &Zoned) -> anyhow::Result<Question> {
    let moment =
        |when: When, option: &str| when.resolve(now).with_context(|| format!("{option}: no calendar has such a time"));
    let day = SignedDuration::from_hours(24);
    let (since, until) = match (args.at, args.since, args.until) {
        (Some(at), _, _) => around(moment(at, "--at")?)?,
        (None, since, until) => {
            let until = until.map_or(Ok(now.timestamp()), |until| moment(until, "--until"))?;
            let since = since.map_or_else(|| Ok(until.checked_sub(day)?), |since| moment(since, "--since"))?;
            (since, until)
        }
    };
    if since >= until {
        let zoned = |at: Timestamp| at.to_zoned(now.time_zone().clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        bail!("the period ends before it begins: --since is {}, --until is {}", zoned(since), zoned(until));
    }
    let filter = Filter {
        process: args.process.clone(),
        unit: args.unit.clone(),
        container: args.container.clone(),
        destination: args.destination,
        finding: args.finding.clone(),
    };
    Ok(Question { since, until, filter, by_minute: args.by == By::Minute, top: usize::from(args.top) })
}

fn around(at: Timestamp) -> anyhow::Result<(Timestamp, Timestamp)> {
    let minute = SignedDuration::from_secs(60);
    let whole = Timestamp::from_second(at.as_second().div_euclid(60) * 60)?;
    Ok((whole.checked_sub(minute * 2)?, whole.checked_add(minute * 3)?))
}
