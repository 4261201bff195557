//! A bar chart as SVG, readable on light and dark pages.

use std::fmt::Write as _;

/// A bar: whose it is, how long it is, and between what the rounds lay.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) least: f64,
    pub(crate) value: f64,
    pub(crate) most: f64,
    /// Drawn in the colour of what the report is about.
    pub(crate) ours: bool,
}

/// Bars under a headline.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

const WIDTH: f64 = 860.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 330.0;
const LONGEST: f64 = 430.0;
const ROW: f64 = 24.0;
const TITLE: f64 = 34.0;
const MARGIN: f64 = 46.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#555}.t{font-weight:600}.o{fill:#c2571a}.x{fill:#7d93ad}\
                     .w{stroke:#555;stroke-width:1.5}@media(prefers-color-scheme:dark){text{fill:#bbb}.w{stroke:#bbb}}";

/// The chart, with the unit of the values. Each group has a scale of its own.
pub(crate) fn draw(title: &str, unit: &str, groups: &[Group]) -> String {
    let height = MARGIN + groups.iter().map(|group| TITLE + ROW * group.bars.len() as f64).sum::<f64>() + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\">\n<style>{STYLE}</style>\n<text class=\"t\" x=\"10\" y=\"24\">{}</text>\n",
        escape(title)
    );
    let mut top = MARGIN;
    for group in groups {
        let _ = writeln!(svg, "<text class=\"t\" x=\"10\" y=\"{:.1}\">{}</text>", top + 18.0, escape(&group.title));
        top += TITLE;
        let most = group.bars.iter().map(|bar| bar.most).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &group.bars {
            draw_bar(&mut svg, bar, LONGEST / most, top, unit);
            top += ROW;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_bar(svg: &mut String, bar: &Bar, scale: f64, top: f64, unit: &str) {
    let class = if bar.ours { 'o' } else { 'x' };
    let (text, middle) = (top + 13.0, top + 8.5);
    let (least, end, most) = (LEFT + bar.least * scale, LEFT + bar.value * scale, LEFT + bar.most * scale);
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"17\" rx=\"2\"/>\
         <line class=\"w\" x1=\"{least:.1}\" x2=\"{most:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
         <text x=\"{:.1}\" y=\"{text:.1}\">{:.1} {unit}</text>",
        LEFT - 8.0,
        escape(&bar.label),
        end - LEFT,
        most + 6.0,
        bar.value
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_of_a_group_ends_within_the_picture() {
        let bar = |value| Bar { label: "a & b".into(), least: value, value, most: value * 1.1, ours: true };
        let group = Group { title: "16 × 1".into(), bars: vec![bar(2.0), bar(200.0)] };
        let svg = draw("costs", "µs", &[group]);
        assert!(svg.contains("a &amp; b") && !svg.contains("a & b"));
        let widths = svg.split("width=\"").skip(2).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(widths.clone().count() >= 2 && widths.fold(0.0, f64::max) <= LONGEST, "{svg}");
    }
}
