//! Charts over time, as SVG that needs no script: the drawing stretches with the page, what is written on it does not.
//!
//! Nothing that came from outside is written here: names stand in the legend, which the template escapes.

use std::fmt::Write as _;

/// Width of the drawing in its own units; on the page it is as wide as there is room.
const WIDTH: f64 = 1_000.0;
/// Room above the highest tick, in pixels, for its label.
const TOP: f64 = 10.0;
/// Room below for the labels of the time axis.
const BELOW: f64 = 24.0;
/// Room for the labels of the value axis.
const LEFT: u32 = 58;
/// Steps of the time axis, in seconds.
const TIME_STEPS: [f64; 20] = [
    0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0,
    21_600.0, 43_200.0, 86_400.0, 604_800.0,
];
/// As many labels of the time axis as fit on a narrow page.
const TIME_LABELS: f64 = 5.0;

/// What is drawn over time.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    /// What it shows, for those who do not see it
    pub(super) label: String,
    /// Height of the drawing, in pixels
    pub(super) height: f64,
    /// Seconds since the session began, of each point
    pub(super) times: &'a [f64],
    /// Whether the series are put one upon the other, as areas; else they are lines
    pub(super) is_stacked: bool,
    /// A class of the style sheet, and a value for each point
    pub(super) series: Vec<(String, Vec<f64>)>,
    /// What was counted at some time, drawn as dots
    pub(super) dots: Vec<(f64, f64)>,
}

impl Chart<'_> {
    /// As HTML.
    pub(super) fn draw(&self) -> String {
        let end = self.times.last().copied().unwrap_or_default().max(f64::MIN_POSITIVE);
        let (top, ticks) = value_axis(self.highest());
        let y = |value: f64| TOP + (self.height - TOP) * (1.0 - value / top);
        let x = |time: f64| WIDTH * (time / end).clamp(0.0, 1.0);

        let mut out = String::from("<div class=\"chart\">");
        let _ = write!(
            out,
            "<svg class=\"axis\" width=\"{LEFT}\" height=\"{}\" aria-hidden=\"true\">",
            self.height + BELOW
        );
        for tick in &ticks {
            let _ = write!(out, "<text x=\"{}\" y=\"{:.1}\">{}</text>", LEFT - 8, y(*tick) + 4.0, value_label(*tick));
        }
        let _ = write!(
            out,
            "</svg><svg class=\"plot\" width=\"100%\" height=\"{}\" role=\"img\" aria-label=\"{}\">",
            self.height + BELOW,
            self.label
        );
        for tick in &ticks {
            let _ = write!(out, "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>", y(*tick));
        }
        let _ = write!(
            out,
            "<svg width=\"100%\" height=\"{0}\" viewBox=\"0 0 {WIDTH} {0}\" preserveAspectRatio=\"none\">",
            self.height
        );
        let mut below = vec![0.0; self.times.len()];
        for (class, values) in &self.series {
            let floor = below.clone();
            if self.is_stacked {
                below.iter_mut().zip(values).for_each(|(below, value)| *below += value);
            }
            let upper = if self.is_stacked { &below } else { values };
            let mut path = String::new();
            for (command, (time, value)) in
                ["M"].into_iter().chain(std::iter::repeat("L")).zip(self.times.iter().zip(upper))
            {
                let _ = write!(path, "{command}{} {}", short(x(*time)), short(y(*value)));
            }
            if self.is_stacked {
                for (time, value) in self.times.iter().zip(&floor).rev() {
                    let _ = write!(path, "L{} {}", short(x(*time)), short(y(*value)));
                }
                path.push('Z');
            }
            let kind = if self.is_stacked { "area" } else { "line" };
            let _ = write!(out, "<path class=\"{kind} {class}\" d=\"{path}\"/>");
        }
        out.push_str("</svg>");
        for (time, value) in &self.dots {
            let _ = write!(
                out,
                "<circle class=\"dot\" cx=\"{:.2}%\" cy=\"{:.1}\" r=\"3.5\"/>",
                x(*time) * 100.0 / WIDTH,
                y(*value)
            );
        }
        for (place, label) in time_axis(end) {
            // The outermost labels stay within the drawing.
            let anchor = if place < 4.0 {
                "start"
            } else if place > 94.0 {
                "end"
            } else {
                "middle"
            };
            let at = self.height + 17.0;
            let _ = write!(out, "<text x=\"{place:.2}%\" y=\"{at:.0}\" text-anchor=\"{anchor}\">{label}</text>");
        }
        out.push_str("</svg></div>");
        out
    }

    fn highest(&self) -> f64 {
        let at = |point: usize| self.series.iter().filter_map(move |(_, values)| values.get(point).copied());
        let points = (0..self.times.len()).map(|point| match self.is_stacked {
            true => at(point).sum(),
            false => at(point).fold(0.0, f64::max),
        });
        points.chain(self.dots.iter().map(|(_, value)| *value)).fold(0.0, f64::max)
    }
}

/// One decimal, and none where it is zero.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The top of an axis that has room for `highest`, and its ticks: one, two or five times a power of ten apart.
fn value_axis(highest: f64) -> (f64, Vec<f64>) {
    let highest = if highest > 0.0 { highest } else { 1.0 };
    let rough = highest / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough);
    let step = step.unwrap_or(power * 10.0);
    let count = (highest / step).ceil().max(1.0);
    let ticks = (0_u32..=count as u32).map(|tick| f64::from(tick) * step).collect();
    (count * step, ticks)
}

/// `12,000`, `0.5`
fn value_label(value: f64) -> String {
    if value.fract() == 0.0 { super::model::grouped(value as u64) } else { format!("{value:.1}") }
}

/// Where the labels of the time axis are, in percent, and what they say.
fn time_axis(end: f64) -> Vec<(f64, String)> {
    let last = TIME_STEPS.last().copied().unwrap_or(end);
    let step = TIME_STEPS.into_iter().find(|step| end / step <= TIME_LABELS).unwrap_or(last.max(end));
    let count = (end / step).floor() as u32;
    (0..=count).map(|tick| f64::from(tick) * step).map(|time| (time * 100.0 / end, time_label(time, step))).collect()
}

/// `15 s`, `2 min`, `1 h 30 min`, of a time that is a multiple of `step`.
pub(super) fn time_label(seconds: f64, step: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3_600, whole / 60 % 60, whole % 60);
    match () {
        () if step < 1.0 => format!("{seconds:.1} s"),
        () if whole < 60 => format!("{whole} s"),
        () if hours == 0 && rest == 0 => format!("{minutes} min"),
        () if hours == 0 => format!("{minutes}:{rest:02} min"),
        () if minutes == 0 && rest == 0 => format!("{hours} h"),
        () if rest == 0 => format!("{hours} h {minutes} min"),
        () => format!("{hours}:{minutes:02}:{rest:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_room_for_the_highest_value_and_round_ticks() {
        for (highest, top, ticks) in [(0.0, 1.0, 3), (7.0, 8.0, 5), (615.0, 800.0, 5), (12_000.0, 15_000.0, 4)] {
            let (found, labels) = value_axis(highest);
            assert!(found >= highest, "{highest}");
            assert!((found - top).abs() < 1e-9 && labels.len() == ticks, "{highest}: {found} {labels:?}");
        }
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let labels = |end| time_axis(end).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(60.0), ["0 s", "15 s", "30 s", "45 s", "1 min"]);
        assert_eq!(labels(1.8), ["0.0 s", "0.5 s", "1.0 s", "1.5 s"]);
        assert_eq!(labels(600.0), ["0 s", "2 min", "4 min", "6 min", "8 min", "10 min"]);
        assert_eq!(time_label(5_400.0, 1_800.0), "1 h 30 min");
    }

    #[test]
    fn areas_stand_upon_each_other() {
        let series = vec![("s0".to_owned(), vec![0.0, 2.0]), ("s1".to_owned(), vec![0.0, 2.0])];
        let chart = Chart {
            label: "x".to_owned(),
            height: 110.0,
            times: &[0.0, 1.0],
            is_stacked: true,
            series,
            dots: vec![(1.0, 4.0)],
        };
        let drawn = chart.draw();
        assert!(drawn.contains("<path class=\"area s0\" d=\"M0 110L1000 60L1000 110L0 110Z\"/>"), "{drawn}");
        assert!(drawn.contains("<path class=\"area s1\" d=\"M0 110L1000 10L1000 60L0 110Z\"/>"), "{drawn}");
        assert!(drawn.contains("cx=\"100.00%\" cy=\"10.0\""), "{drawn}");
    }
}
