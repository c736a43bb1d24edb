//! Plots as SVG, drawn by hand: lines over an axis, and bars.

use std::fmt::Write;

/// Size of a plot in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
/// Room for the axes' labels.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 22.0;
const RIGHT: f64 = 10.0;
/// Lines across a plot.
const GRID: usize = 4;
/// What a logarithmic axis takes for zero.
const LOGARITHM_MIN: f64 = 1e-9;
/// Colours of the lines, in order.
const COLOURS: [&str; 4] = ["#1f6feb", "#d1242f", "#9a6700", "#1a7f37"];

/// A named line.
pub(super) struct Line<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

/// A plot of lines over a common axis.
pub(super) struct Plot<'a> {
    pub title: &'a str,
    pub lines: Vec<Line<'a>>,
    /// Whether y grows by powers of ten.
    pub logarithmic: bool,
    /// A label for a place on the x axis.
    pub x_label: fn(f64) -> String,
    /// A label for a value.
    pub y_label: fn(f64) -> String,
    /// Places on the x axis that get a label; none: evenly spaced ones.
    pub x_ticks: Vec<f64>,
}

impl Plot<'_> {
    /// The plot as an SVG element. Nothing but a note when there is nothing to plot.
    pub fn draw(&self) -> String {
        let Some(scale) = self.scale() else {
            return format!("<p>{}: nothing to plot</p>", escaped(self.title));
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>",
            escaped(self.title)
        );
        self.draw_axes(&mut svg, &scale);
        for (at, (line, colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let place = |&(x, y): &(f64, f64)| format!("{:.1},{:.1}", scale.x(x), scale.y(y));
            let path: Vec<String> = line.points.iter().filter(is_finite).map(place).collect();
            let (points, name, left) = (path.join(" "), escaped(line.name), LEFT + at as f64 * 120.0);
            let style = format_args!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"");
            put(&mut svg, format_args!("<polyline {style} points=\"{points}\"/>"));
            put(&mut svg, format_args!("<text fill=\"{colour}\" x=\"{left:.1}\" y=\"14\">{name}</text>"));
        }
        svg.push_str("</svg>");
        svg
    }

    fn draw_axes(&self, svg: &mut String, scale: &Scale) {
        let right = WIDTH - RIGHT;
        for step in 0..=GRID {
            let value = scale.level(step as f64 / GRID as f64);
            let (at, label) = (scale.y(value), escaped(&(self.y_label)(value)));
            let (edge, below) = (LEFT - 6.0, at + 4.0);
            let grid =
                format_args!("<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
            put(svg, grid);
            put(svg, format_args!("<text class=\"y\" x=\"{edge:.1}\" y=\"{below:.1}\">{label}</text>"));
        }
        let (x_min, x_max) = scale.x_range;
        let even = (0..=GRID).map(|step| x_min + (x_max - x_min) * step as f64 / GRID as f64);
        let ticks: Vec<f64> = if self.x_ticks.is_empty() { even.collect() } else { self.x_ticks.clone() };
        for tick in ticks {
            let (at, label, bottom) = (scale.x(tick), escaped(&(self.x_label)(tick)), HEIGHT - 8.0);
            put(svg, format_args!("<text class=\"x\" x=\"{at:.1}\" y=\"{bottom}\">{label}</text>"));
        }
    }

    /// What the axes span; none when there is nothing to plot.
    fn scale(&self) -> Option<Scale> {
        let points: Vec<(f64, f64)> =
            self.lines.iter().flat_map(|line| line.points.iter().copied()).filter(|point| is_finite(&point)).collect();
        let first = *points.first()?;
        let x_range = points.iter().fold((first.0, first.0), |(least, most), (x, _)| (least.min(*x), most.max(*x)));
        let y_most = points.iter().map(|point| point.1).fold(first.1, f64::max);
        let y_least = points.iter().map(|point| point.1).filter(|&y| y > 0.0).fold(y_most, f64::min);
        let logarithmic = self.logarithmic;
        let y_range = if logarithmic {
            (y_least.max(LOGARITHM_MIN).log10().floor(), y_most.max(LOGARITHM_MIN).log10().ceil())
        } else {
            (0.0, y_most * 1.05)
        };
        Some(Scale { x_range, y_range, logarithmic })
    }
}

/// From values to places in a plot.
struct Scale {
    x_range: (f64, f64),
    /// Of logarithms, where the axis is one.
    y_range: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        LEFT + share(self.x_range, value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(LOGARITHM_MIN).log10() } else { value };
        HEIGHT - BOTTOM - share(self.y_range, value) * (HEIGHT - BOTTOM - TOP)
    }

    /// The value at a share of the y axis.
    fn level(&self, share: f64) -> f64 {
        let (least, most) = self.y_range;
        let level = least + (if most > least { most - least } else { 1.0 }) * share;
        if self.logarithmic { 10f64.powf(level) } else { level }
    }
}

fn share((least, most): (f64, f64), value: f64) -> f64 {
    (value - least) / if most > least { most - least } else { 1.0 }
}

fn is_finite(point: &&(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

fn put(svg: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A String takes whatever is written to it.
    let _ = svg.write_fmt(arguments);
}

/// Text that may stand in markup.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
