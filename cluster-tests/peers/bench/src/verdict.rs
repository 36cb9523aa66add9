//! Whether Purlin is ahead of every peer in a row, and if not, of which it is not.

use crate::figures::Figure;
use crate::rounds::Cell;
use crate::systems::System;

/// What the mark at a peer's name says.
pub(crate) const EXCUSED: &str =
    "* not encrypted, and ahead of bare quinn as well: the ceiling of what is";

/// Of one figure, more or less of which is better as its unit says; `None` if there is no peer to
/// compare with.
pub(crate) fn of(
    cells: &[&Cell],
    unit: &str,
    figure: impl Fn(&Cell) -> Option<f64>,
) -> Option<String> {
    let of = |system: System| figure(cells.iter().find(|cell| cell.system == system)?);
    let ahead = |a: f64, b: f64| if unit.ends_with("/s") { a > b } else { a < b };
    let own = of(System::Purlin)?;
    let peers = System::ALL.into_iter().filter(|system| system.is_peer());
    let peers: Vec<_> = peers.filter_map(|peer| Some((peer, of(peer)?))).collect();
    if peers.is_empty() {
        return None;
    }
    let excused = |peer: System, figure: f64| {
        !peer.is_encrypted() && of(System::Bare).is_some_and(|bare| ahead(figure, bare))
    };
    let (mut excuses, mut behind) = (Vec::new(), Vec::new());
    for (peer, figure) in peers.into_iter().filter(|(_, figure)| ahead(*figure, own)) {
        match excused(peer, figure) {
            true => excuses.push(format!("{}*", peer.name())),
            false => behind.push(peer.name().to_owned()),
        }
    }
    let mark = if behind.is_empty() { "✓" } else { "✗" };
    behind.append(&mut excuses);
    Some(format!("{mark} {}", behind.join(" ")).trim_end().to_owned())
}

/// The medians of one metric.
pub(crate) fn metric(name: &str) -> impl Fn(&Cell) -> Option<f64> + '_ {
    move |cell| cell.figure(name).map(|figure| figure.median)
}

/// CPU time of both sides; only OTP over TLS is asked for.
pub(crate) fn cpu(cells: &[&Cell]) -> Option<String> {
    let compared = [System::Purlin, System::OtpTls];
    let cells: Vec<_> = cells.iter().copied().filter(|c| compared.contains(&c.system)).collect();
    let both = |(client, server): (Figure, Figure)| client.median + server.median;
    of(&cells, "ns/msg", |cell| cell.cpu().map(both))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use meter::{Metric, Outcome, Report, Task};

    fn cell(system: System, value: f64, unit: &str) -> Cell {
        let metrics = vec![Metric::new("figure", value, unit)];
        let report =
            Report { workload: String::new(), metrics, sent: 0, received: 0, cpu_ns_per_msg: None };
        Cell { task: Task::all()[0], system, outcomes: vec![Outcome::Done(report)] }
    }

    fn verdict(unit: &str, figures: &[(System, f64)]) -> Option<String> {
        let cells: Vec<_> = figures.iter().map(|(of, value)| cell(*of, *value, unit)).collect();
        of(&cells.iter().collect::<Vec<_>>(), unit, metric("figure"))
    }

    #[test]
    fn who_is_ahead_is_named_and_an_unencrypted_one_excused_if_the_ceiling_is_below_it() {
        use System::{Bare, OtpTcp, OtpTls, Purlin, Zestors};
        let all = |own, tcp, zestors| {
            [(Purlin, own), (Bare, 4.0), (OtpTcp, tcp), (OtpTls, 1.0), (Zestors, zestors)]
        };
        let shown =
            [all(3.0, 2.0, 1.0), all(3.0, 5.0, 1.0), all(2.0, 3.0, 1.0), all(2.0, 5.0, 3.0)]
                .map(|figures| verdict("msg/s", &figures).unwrap());
        assert_eq!(shown, ["✓", "✓ otp-tcp*", "✗ otp-tcp", "✗ zestors otp-tcp*"]);
        assert_eq!(verdict("µs", &all(0.5, 0.8, 0.9)), Some("✓".to_owned()));
        assert_eq!(verdict("µs", &all(2.0, 3.0, 2.5)), Some("✗ otp-tls".to_owned()));
        assert_eq!(verdict("µs", &[(Purlin, 1.0), (Bare, 0.5)]), None);
    }
}
