//! A plot as an SVG file: both axes logarithmic, so that what grows as much as its number is a slope of one, and what
//! does not grow is level. Its colors can be read on white and on black.

use std::fmt::Write as _;

use super::figures::Unit;
use super::results::Plot;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// Where the axes are: left, right, top, bottom.
const AREA: [f64; 4] = [76.0, 560.0, 44.0, 346.0];
const INK: &str = "#7d8590";
const OURS: &str = "#2f81f7";
const OTHERS: [&str; 3] = ["#db6d28", "#3fa34d", "#a371f7"];

/// The picture; `None` if there is nothing to show.
pub fn svg(plot: &Plot) -> Option<String> {
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let across = Scale::around(points().map(|point| point.0), [AREA[0], AREA[1]])?;
    let upward = Scale::around(points().map(|point| point.1), [AREA[3], AREA[2]])?;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{INK}\">\n"
    );
    let mut put = |line: String| writeln!(text, "{line}").unwrap();
    put(label(
        AREA[0],
        24.0,
        "start",
        &format!("<tspan font-weight=\"bold\">{}</tspan>", escape(&plot.title)),
    ));
    for value in across.decades() {
        let x = across.at(value);
        put(grid([x, x, AREA[2], AREA[3]]));
        put(label(x, AREA[3] + 20.0, "middle", &Unit::Count.show(value)));
    }
    for value in upward.decades() {
        let y = upward.at(value);
        put(grid([AREA[0], AREA[1], y, y]));
        put(label(AREA[0] - 8.0, y + 4.0, "end", &round_time(value)));
    }
    put(label(f64::midpoint(AREA[0], AREA[1]), HEIGHT - 12.0, "middle", &escape(&plot.of)));
    let mut others = OTHERS.iter().cycle();
    let mut legends: Vec<(f64, String)> = Vec::new();
    for line in &plot.lines {
        let color = if line.is_ours { OURS } else { others.next().unwrap_or(&INK) };
        let places: Vec<(f64, f64)> =
            line.points.iter().map(|point| (across.at(point.0), upward.at(point.1))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"/>",
            path.join(" ")
        ));
        for (x, y) in &places {
            put(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"/>"));
        }
        if let Some((_, y)) = places.last() {
            let name = escape(&line.program);
            legends.push((*y, format!("<tspan fill=\"{color}\" font-weight=\"bold\">{name}</tspan>")));
        }
    }
    for (y, legend) in apart(legends, 18.0) {
        put(label(AREA[1] + 12.0, y + 4.0, "start", &legend));
    }
    text.push_str("</svg>\n");
    Some(text)
}

/// Moves labels down until none covers another.
fn apart(mut labels: Vec<(f64, String)>, least: f64) -> Vec<(f64, String)> {
    labels.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = f64::NEG_INFINITY;
    for (y, _) in &mut labels {
        *y = y.max(free);
        free = *y + least;
    }
    labels
}

fn grid([left, right, top, bottom]: [f64; 4]) -> String {
    format!(
        "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"{INK}\" stroke-opacity=\"0.3\"/>"
    )
}

fn label(x: f64, y: f64, anchor: &str, markup: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{markup}</text>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A power of ten of seconds.
fn round_time(value: f64) -> String {
    let shown = Unit::Seconds.show(value * 1.000_001);
    shown.replace(".00", "").replace(".0", "")
}

/// A logarithmic scale over whole decades.
struct Scale {
    decades: [i32; 2],
    pixels: [f64; 2],
}

impl Scale {
    /// `None` if there is no value, or one that has no logarithm.
    fn around(values: impl Iterator<Item = f64> + Clone, pixels: [f64; 2]) -> Option<Self> {
        let least = values.clone().min_by(f64::total_cmp)?;
        let most = values.max_by(f64::total_cmp)?;
        if least <= 0.0 || !most.is_finite() {
            return None;
        }
        let first = (least.log10() + 1e-9).floor() as i32;
        let last = (most.log10() - 1e-9).ceil() as i32;
        Some(Self { decades: [first, last.max(first + 1)], pixels })
    }

    fn decades(&self) -> impl Iterator<Item = f64> + use<> {
        (self.decades[0]..=self.decades[1]).map(|power| 10f64.powi(power))
    }

    fn at(&self, value: f64) -> f64 {
        let [first, last] = self.decades.map(f64::from);
        let part = (value.log10() - first) / (last - first);
        self.pixels[0] + part * (self.pixels[1] - self.pixels[0])
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::Line;
    use super::*;

    #[test]
    fn a_scale_goes_over_whole_decades() {
        let scale = Scale::around([10.0, 20.0, 1_000.0].into_iter(), [100.0, 300.0]).unwrap();
        assert_eq!(scale.decades().collect::<Vec<_>>(), [10.0, 100.0, 1_000.0]);
        assert_eq!([10.0, 100.0, 1_000.0].map(|value| scale.at(value)), [100.0, 200.0, 300.0]);
        let scale = Scale::around([0.003, 0.004].into_iter(), [0.0, 1.0]).unwrap();
        assert_eq!(scale.decades, [-3, -2]);
        // One value still has a scale, and nothing has none.
        assert_eq!(Scale::around([1.0].into_iter(), [0.0, 1.0]).unwrap().decades, [0, 1]);
        assert!(Scale::around(std::iter::empty(), [0.0, 1.0]).is_none());
        assert!(Scale::around([0.0, 1.0].into_iter(), [0.0, 1.0]).is_none());
    }

    #[test]
    fn times_of_the_axis_are_round() {
        assert_eq!(
            [1e-5, 1e-3, 0.1, 1.0, 100.0].map(round_time),
            ["10 us", "1 ms", "100 ms", "1 s", "100 s"]
        );
    }

    #[test]
    fn labels_do_not_cover_each_other() {
        let labels = [(100.0, "c"), (50.0, "a"), (95.0, "b")].map(|(y, name)| (y, name.to_owned())).to_vec();
        let placed: Vec<f64> = apart(labels, 18.0).into_iter().map(|label| label.0).collect();
        assert_eq!(placed, [50.0, 95.0, 113.0]);
    }

    #[test]
    fn a_picture_has_every_line_and_point() {
        let line = |program: &str, is_ours, points: &[(f64, f64)]| Line {
            program: program.to_owned(),
            is_ours,
            points: points.to_vec(),
        };
        let plot = Plot {
            name: "growth".to_owned(),
            title: "create & delete".to_owned(),
            of: "containers".to_owned(),
            lines: vec![
                line("layerstore", true, &[(10.0, 0.004), (10_000.0, 0.004)]),
                line("another", false, &[(10.0, 0.02), (10_000.0, 1.0)]),
            ],
        };
        let picture = svg(&plot).unwrap();
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert_eq!(picture.matches("<circle").count(), 4);
        assert!(picture.contains("create &amp; delete") && picture.contains(">10,000<"));
        // From 1 ms to 1 s, so 1 s is at the top.
        assert!(picture.contains("cx=\"560.0\" cy=\"44.0\""), "{picture}");
        assert_eq!(svg(&Plot { lines: Vec::new(), ..plot }), None);
    }
}
