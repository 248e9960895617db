//! The ratios as a picture: a bar for the median, a line for the spread.

use std::fmt::Write as _;

use super::measure::Measured;

const LABEL: f64 = 190.0;
const BAR: f64 = 480.0;
const ROW: f64 = 30.0;
const TOP: f64 = 56.0;

pub(super) fn svg(machine: &str, measured: &[Measured]) -> String {
    let height = TOP + ROW * measured.len() as f64 + 30.0;
    let width = LABEL + BAR + 80.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"22\" \
         font-weight=\"bold\">Connections a second, with it attached / without</text>\n<text x=\"10\" y=\"42\" \
         fill=\"#555\">{}; median and spread</text>\n",
        escape(machine)
    );
    let end = LABEL + BAR;
    for (row, it) in measured.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let x = |ratio: f64| LABEL + BAR * ratio.clamp(0.0, 1.1) / 1.1;
        let colour = if it.is_ours { "#2a6f97" } else { "#adb5bd" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{:.1}\">{}</text>\n<rect x=\"{LABEL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"18\" \
             fill=\"{colour}\"/>\n<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{m:.1}\" y2=\"{m:.1}\" stroke=\"black\"/>\n<text \
             x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
            y + 14.0,
            escape(&it.name),
            y,
            x(it.ratio.median) - LABEL,
            x(it.ratio.low),
            x(it.ratio.high),
            end + 10.0,
            y + 14.0,
            it.ratio.median,
            m = y + 9.0,
        );
    }
    let one = LABEL + BAR / 1.1;
    let _ = writeln!(
        svg,
        "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#555\" stroke-dasharray=\"4 3\"/>\n</svg>",
        height - 20.0
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
