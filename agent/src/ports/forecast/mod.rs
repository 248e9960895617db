//! Until when the ports of a route last.
//!
//! No averages of the past decide alone: when the timewait sockets that are there will let go of their ports is known
//! exactly, because each says how much time it has left. What is not known is how many will come, which is taken to be
//! as many as of late, and that is why a forecast has three answers.

use std::time::Duration;

use super::rates::Rate;

/// A year: beyond it no forecast means anything, and a [`Duration`] of any number of seconds can be made.
const FAR: f64 = 365.0 * 86_400.0;

/// What is known of the ports of a route now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation<'a> {
    /// Ports it cannot have
    pub used: u32,
    /// Ports there are
    pub usable: u32,
    /// When ports that are used now are let go of, soonest first
    pub frees: &'a [Duration],
    /// How long a port is kept from when its connection entered TIME_WAIT
    pub hold: Duration,
}

/// What becomes of a route's ports if connections come at a steady rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// None is left after this time, at once if none is left now
    Exhausted(Duration),
    /// As many ports leave as come, and this many are in use then
    LevelsOff(f64),
}

impl Situation<'_> {
    /// What becomes of them if `per_s` connections a second enter TIME_WAIT.
    ///
    /// Until the first of those leaves, after `hold`, the ports in use are `used + per_s * t`, less those of `frees` that
    /// have come back by then. After it they are what is never let go of, and `per_s * hold`.
    #[must_use]
    pub fn at_rate(&self, per_s: f64) -> Outcome {
        let hold = self.hold.as_secs_f64();
        let free = f64::from(self.usable) - f64::from(self.used);
        if free <= 0.0 {
            return Outcome::Exhausted(Duration::ZERO);
        }
        let ends = self.frees.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        for (end, freed) in ends.zip(0_u32..) {
            // Until the next one comes back there are only more and more in use.
            let at = (free + f64::from(freed)) / per_s;
            if per_s > 0.0 && at <= hold && at < end {
                return Outcome::Exhausted(Duration::from_secs_f64(at.min(FAR)));
            }
        }
        let stays = f64::from(self.used) - self.frees.len() as f64;
        Outcome::LevelsOff(stays.max(0.0) + per_s.max(0.0) * hold)
    }
}

/// When a route runs out of ports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// At the rate that was seen
    pub likely: Outcome,
    /// At the highest rate that what was seen allows for
    pub soonest: Outcome,
    /// At the lowest
    pub latest: Outcome,
}

/// Makes a forecast.
#[must_use]
pub fn forecast(situation: &Situation<'_>, rate: &Rate) -> Forecast {
    Forecast {
        likely: situation.at_rate(rate.per_s),
        soonest: situation.at_rate(rate.high),
        latest: situation.at_rate(rate.low),
    }
}

#[cfg(test)]
mod tests;
