//! Whether `firstfin report` keeps up with the worst load there is, for a while.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    measure::{Churn, Events},
    subject::Subject,
};

pub(super) struct Losses {
    pub(super) lasted: Duration,
    pub(super) churn: Churn,
    pub(super) events: Events,
}

impl Losses {
    pub(super) fn measure(lasting: Duration, results: &Path) -> Result<Self> {
        let subject = Subject::report("losses", &[], results)?;
        let running = subject.begin()?;
        let churn = Churn::run(lasting)?;
        running.end()?;
        let events = Events::of(&subject.said()).context("the report has no events")?;
        Ok(Self { lasted: lasting, churn, events })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seconds": self.lasted.as_secs(),
            "connections": self.churn.connections,
            "records_received": self.events.received,
            "records_lost": self.events.lost,
        })
    }
}
