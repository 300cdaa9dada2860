//! One curve as inline SVG, with its values in words beside it.

use std::fmt::Write as _;

use jiff::Timestamp;
use maud::{Markup, html};

use crate::cluster::in_time;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 90.0;
/// Room for the labels of the axes.
const TOP: f64 = 14.0;
const BOTTOM: f64 = 14.0;

pub(super) struct Plot<'a> {
    pub title: &'a str,
    /// Seconds since 1970.
    pub from: i64,
    pub to: i64,
    /// A line that is not to be crossed.
    pub limit: Option<f64>,
    pub is_bytes: bool,
    pub curve: Curve,
}

pub(super) enum Curve {
    /// Points that are further apart than so many seconds are not joined: in between nothing was known.
    Line(Vec<(i64, f64)>, i64),
    /// Each with whether it is good.
    Dots(Vec<(i64, f64, bool)>),
}

impl Plot<'_> {
    pub(super) fn render(&self) -> Markup {
        let points: Vec<(i64, f64)> = match &self.curve {
            Curve::Line(points, _) => points.clone(),
            Curve::Dots(points) => points.iter().map(|(at, value, _)| (*at, *value)).collect(),
        };
        let Some((at, last)) = points.last() else {
            return html! { figure { figcaption { (self.title) ": nothing is known" } } };
        };
        let highest = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let most = self.most(highest);
        let label = format!(
            "{}: {} {}, at most {}",
            self.title,
            self.shown(*last),
            self.of(*at),
            self.shown(highest)
        );
        html! {
            figure {
                figcaption { (label) }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT + TOP + BOTTOM) } role="img" aria-label=(label) {
                    path.axis d={ "M0 " (TOP) "V" (TOP + HEIGHT) "H" (WIDTH) } {}
                    text x="4" y="10" { (self.shown(most)) }
                    text x="0" y=(TOP + HEIGHT + 12.0) { (moment(self.from)) }
                    text x=(WIDTH) y=(TOP + HEIGHT + 12.0) text-anchor="end" { (moment(self.to)) }
                    @if let Some(limit) = self.limit.filter(|limit| *limit <= most) {
                        path.limit d={ "M0 " (self.y(limit, most)) "H" (WIDTH) } { title { "objective " (self.shown(limit)) } }
                    }
                    (self.drawn(most))
                }
            }
        }
    }

    /// Of when the last value is: a curve that ended says nothing of now.
    fn of(&self, at: i64) -> String {
        match &self.curve {
            Curve::Line(_, joined) if self.to - at <= *joined => "now".to_owned(),
            Curve::Line(..) => format!("at {}, nothing known since", moment(at)),
            Curve::Dots(_) => "last".to_owned(),
        }
    }

    /// The top of the plot: a limit is shown where the curve comes near it.
    fn most(&self, highest: f64) -> f64 {
        let near = self.limit.filter(|limit| highest > limit / 3.0);
        let most = near.map_or(highest, |limit| highest.max(limit)) * 1.05;
        if most > 0.0 { most } else { 1.0 }
    }

    fn drawn(&self, most: f64) -> Markup {
        match &self.curve {
            Curve::Line(points, joined) => {
                html! { path.curve d=(self.path(points, *joined, most)) {} }
            }
            Curve::Dots(points) => {
                let joined: Vec<(i64, f64)> =
                    points.iter().map(|(at, value, _)| (*at, *value)).collect();
                html! {
                    path.curve d=(self.path(&joined, i64::MAX, most)) {}
                    @for (at, value, good) in points {
                        @let (x, y) = (self.x(*at), self.y(*value, most));
                        @if *good {
                            circle.dot cx=(x) cy=(y) r="2.5" {}
                        } @else {
                            path.cross d={ "M" (x) " " (y) "m-3 -3l6 6m0 -6l-6 6" } { title { "not passed" } }
                        }
                    }
                }
            }
        }
    }

    fn path(&self, points: &[(i64, f64)], joined: i64, most: f64) -> String {
        let mut path = String::new();
        let mut before: Option<i64> = None;
        for (at, value) in points {
            let is_joined = before.is_some_and(|before| at - before <= joined);
            let (x, y) = (self.x(*at), self.y(*value, most));
            let _ = match is_joined {
                true => write!(path, "L{x} {y}"),
                // A point of its own is a short line.
                false => write!(path, "M{x} {y}h.1"),
            };
            before = Some(*at);
        }
        path
    }

    #[expect(clippy::cast_precision_loss, reason = "a tenth of a pixel is enough")]
    fn x(&self, at: i64) -> f64 {
        let part = (at - self.from) as f64 / (self.to - self.from).max(1) as f64;
        tenth(part.clamp(0.0, 1.0) * WIDTH)
    }

    fn y(&self, value: f64, most: f64) -> f64 {
        tenth(TOP + HEIGHT - (value / most).clamp(0.0, 1.0) * HEIGHT)
    }

    fn shown(&self, value: f64) -> String {
        if !self.is_bytes {
            return in_time(value);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bytes"
        )]
        let bytes = value.max(0.0) as u64;
        bytesize::ByteSize(bytes).to_string()
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn moment(second: i64) -> String {
    let at = Timestamp::from_second(second).unwrap_or_default();
    at.strftime("%d %b %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(curve: Curve) -> Plot<'static> {
        Plot {
            title: "RPO",
            from: 0,
            to: 100,
            limit: None,
            is_bytes: false,
            curve,
        }
    }

    #[test]
    fn a_hole_is_not_drawn_over() {
        let points = [(0, 1.0), (30, 1.0), (100, 2.0)];
        let path = plot(Curve::Line(Vec::new(), 30)).path(&points, 30, 2.0);
        assert_eq!(path, "M0 59h.1L90 59M300 14h.1");
    }

    #[test]
    fn a_curve_that_ended_does_not_speak_of_now() {
        let shown = |at| {
            let curve = Curve::Line(vec![(at, 7.0)], 30);
            plot(curve).render().into_string()
        };
        assert!(
            shown(80).contains("RPO: 7.0 s now, at most"),
            "{}",
            shown(80)
        );
        let ended = shown(60);
        assert!(
            ended.contains("RPO: 7.0 s at 01 Jan 00:01, nothing known since"),
            "{ended}"
        );
        assert!(!ended.contains(" now"), "{ended}");
    }

    #[test]
    fn what_did_not_pass_is_a_cross_and_not_only_red() {
        let dots = Curve::Dots(vec![(0, 1.0, true), (50, 2.0, false)]);
        let shown = plot(dots).render().into_string();
        assert_eq!(shown.matches("<circle").count(), 1, "{shown}");
        assert!(shown.contains("class=\"cross\"") && shown.contains("not passed"));
        assert!(shown.contains("RPO: 2.0 s last, at most"), "{shown}");
    }

    #[test]
    fn nothing_known_is_said_and_not_drawn_as_zero() {
        let shown = plot(Curve::Line(Vec::new(), 30)).render().into_string();
        assert!(
            shown.contains("nothing is known") && !shown.contains("svg"),
            "{shown}"
        );
    }
}
