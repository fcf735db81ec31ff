//! The page that is made of all results: `docs/performance.md`. What people have written between its marks stays.

use std::fmt::Write as _;

use super::figures::{Spread, Unit, digits, median};
use super::results::{Claim, Cost, Measured, Plot, Results, Session, Sync, Target};

const BEGIN: &str = "<!-- remarks: written by hand, and kept -->";
const END: &str = "<!-- end of remarks -->";
const DASH: &str = "-";

/// The page. `order` has the names of the rows in their order; `old` is the page that is there, whose remarks are kept.
pub fn page(results: &Results, order: &[&str], method: &str, old: &str) -> String {
    let rows: Vec<&Measured> = order.iter().filter_map(|name| results.rows.get(*name)).collect();
    let missing: Vec<&str> =
        order.iter().filter(|name| !results.rows.contains_key(**name)).copied().collect();
    let mut page = String::from(
        "# Performance\n\n\
         How long layerstore takes, beside the programs that do the same work. `benches/peers.sh` has made this page, and makes it anew; only the\n\
         remarks are written by hand. Figures of two machines, or of two days, are not compared: what carries over is the ratio of programs that\n\
         took turns.\n\n",
    );
    if rows.iter().any(|row| row.session.quick) {
        page.push_str(
            "**Some rows are of a quick run, with small sizes. No figure here means anything.**\n\n",
        );
    }
    if rows.is_empty() {
        page.push_str(
            "**Nothing is here yet.** The figures come with the first run on a machine that does nothing else.\n\n",
        );
    } else {
        page.push_str(&machine(results, order));
        page.push_str(&claims(&rows));
        page.push_str(&growth(&rows));
        page.push_str(&costs(&rows));
    }
    if !missing.is_empty() {
        writeln!(page, "Not measured: {}.\n", missing.join(", ")).unwrap();
    }
    page.push_str(method.trim());
    write!(page, "\n\n## Remarks\n\n{BEGIN}\n{}\n{END}\n", remarks(old)).unwrap();
    page
}

/// What stands between the marks of a page.
fn remarks(page: &str) -> &str {
    let inside = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    inside.map_or("What did not reach its target, why, and what was tried: nothing yet.", |(inside, _)| {
        inside.trim()
    })
}

/// Each session once, with its rows.
fn machine(results: &Results, order: &[&str]) -> String {
    let rows = || order.iter().filter_map(|name| Some((*name, results.rows.get(*name)?)));
    let mut sessions: Vec<(&Session, Vec<&str>)> = Vec::new();
    for (name, row) in rows() {
        let same = |other: &Session| {
            other.date == row.session.date
                && other.commit == row.session.commit
                && other.machine == row.session.machine
                && other.programs == row.session.programs
                && other.rounds == row.session.rounds
        };
        match sessions.iter_mut().find(|(session, _)| same(session)) {
            Some((_, names)) => names.push(name),
            None => sessions.push((&row.session, vec![name])),
        }
    }
    let mut text = String::from("## The machine\n\n");
    for (session, names) in sessions {
        let Session { date, commit, rounds, .. } = session;
        writeln!(text, "- {date}, commit {commit}, {rounds} rounds: the rows {}", names.join(", ")).unwrap();
        session.machine.iter().for_each(|line| writeln!(text, "  - {line}").unwrap());
        writeln!(text, "  - against {}", session.programs.join(", ")).unwrap();
    }
    let busy = rows().map(|(_, row)| row.session.busy).fold(0.0, f64::max) * 100.0;
    writeln!(text, "\nBefore each row, other things took at most {busy:.0} % of the processors' time.\n")
        .unwrap();
    text
}

fn claims(rows: &[&Measured]) -> String {
    let mut text = String::from(
        "## The targets\n\nThe targets are what this project asks of itself. Each time is a median; a ratio is the median of the rounds' ratios, with the least and the greatest. *With its sync* is \
         the ratio if what the other left to the kernel is brought to the disk, too, as it is on our side.\n\n\
         | work | layerstore | against | its | ratio | with its sync | target | met |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for claim in rows.iter().flat_map(|row| &row.claims) {
        text.push_str(&claim_line(claim));
    }
    text.push('\n');
    text
}

fn claim_line(claim: &Claim) -> String {
    let is_told_as_within = matches!(claim.target, Target::Within(_));
    let ratio = |ratios: Vec<f64>| match Spread::of(&ratios) {
        None => DASH.to_owned(),
        Some(Spread { median, min, max }) if is_told_as_within => {
            let (median, min, max) = (median.recip(), max.recip(), min.recip());
            format!("{} times its time ({} to {})", digits(median), digits(min), digits(max))
        }
        Some(Spread { median, min, max }) => {
            format!("{} times as fast ({} to {})", digits(median), digits(min), digits(max))
        }
    };
    let show = |values: &[f64]| match values {
        [] => DASH.to_owned(),
        values => claim.unit.show(median(values)),
    };
    let against = if claim.against.is_empty() { DASH } else { &claim.against };
    let met = claim.is_met().map_or(DASH, |met| if met { "yes" } else { "**no**" });
    format!(
        "| {} | {} | {against} | {} | {} | {} | {} | {met} |\n",
        claim.work,
        show(&claim.ours),
        show(&claim.other),
        ratio(claim.times_faster()),
        ratio(claim.times_faster_synced()),
        target(claim),
    )
}

fn target(claim: &Claim) -> String {
    match claim.target {
        Target::Faster(1.0) => "faster".to_owned(),
        Target::Faster(times) => format!("{times} times as fast"),
        Target::Within(1.0) => "no slower".to_owned(),
        Target::Within(times) => format!("at most {times} times"),
        Target::AtMost(limit) => format!("at most {}", claim.unit.show(limit)),
        Target::AtLeast(limit) => format!("at least {}", claim.unit.show(limit)),
        Target::None => DASH.to_owned(),
    }
}

fn growth(rows: &[&Measured]) -> String {
    let plots: Vec<&Plot> = rows.iter().flat_map(|row| &row.plots).collect();
    if plots.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "## As things grow\n\nBoth axes are logarithmic: level is what does not depend on how many there are.\n\n",
    );
    for plot in plots {
        writeln!(text, "![{}, by the number of {}](performance/{}.svg)\n", plot.title, plot.of, plot.name)
            .unwrap();
    }
    text
}

fn costs(rows: &[&Measured]) -> String {
    let mut text = String::from(
        "## What each program took\n\nCPU seconds are of all processors together. Peak memory is that of all processes of a pipeline together; it, \
         the syncs (`fsync`, `fdatasync`, `syncfs`) and the system calls are of runs of their own, which were not timed.\n\n\
         | work | program | time | with a sync | on the disk at its end | CPU | peak memory | syncs | system calls |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for cost in rows.iter().flat_map(|row| &row.costs) {
        text.push_str(&cost_line(cost));
    }
    text.push('\n');
    text
}

fn cost_line(cost: &Cost) -> String {
    let show = |unit: Unit, value: Option<f64>| value.map_or(DASH.to_owned(), |value| unit.show(value));
    let on_disk = match cost.sync {
        Sync::Included => "all",
        Sync::Records => "records",
        Sync::Left => "nothing",
        Sync::ReadOnly => DASH,
    };
    format!(
        "| {} | {} | {} | {} | {on_disk} | {} | {} | {} | {} |\n",
        cost.work,
        cost.program,
        Unit::Seconds.show(median(&cost.wall)),
        show(Unit::Seconds, Spread::of(&cost.synced).map(|spread| spread.median)),
        processor_time(cost.processor()),
        show(Unit::Bytes, cost.peak.map(|peak| peak as f64)),
        show(Unit::Count, cost.syncs),
        show(Unit::Count, cost.calls),
    )
}

/// What the kernel counts in hundredths of a second.
fn processor_time(seconds: f64) -> String {
    if seconds > 0.0 { Unit::Seconds.show(seconds) } else { format!("< {}", Unit::Seconds.show(0.01)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(target: Target) -> Claim {
        Claim {
            work: "load, gzip".to_owned(),
            against: "`skopeo copy`".to_owned(),
            unit: Unit::Seconds,
            ours: vec![3.0, 2.0, 4.0],
            other: vec![12.0, 12.0, 12.0],
            other_synced: vec![15.0, 13.0, 14.0],
            target,
        }
    }

    #[test]
    fn a_line_has_the_ratios_and_whether_they_suffice() {
        assert_eq!(
            claim_line(&claim(Target::Faster(4.0))),
            "| load, gzip | 3.00 s | `skopeo copy` | 12.0 s | 4.00 times as fast (3.00 to 6.00) | \
             5.00 times as fast (3.50 to 6.50) | 4 times as fast | yes |\n"
        );
        let told = claim_line(&claim(Target::Within(0.2)));
        assert!(told.contains("| 0.25 times its time (0.17 to 0.33) |"), "{told}");
        assert!(told.ends_with("| at most 0.2 times | **no** |\n"), "{told}");
        let alone = Claim {
            against: String::new(),
            other: Vec::new(),
            other_synced: Vec::new(),
            ..claim(Target::None)
        };
        assert_eq!(claim_line(&alone), "| load, gzip | 3.00 s | - | - | - | - | - | - |\n");
        let faster = claim_line(&claim(Target::Faster(1.0)));
        assert!(faster.ends_with("| faster | yes |\n"), "{faster}");
    }

    #[test]
    fn a_cost_says_what_is_on_the_disk() {
        let cost = Cost {
            work: "load".to_owned(),
            program: "tar".to_owned(),
            sync: Sync::Left,
            wall: vec![1.0, 3.0, 2.0],
            synced: vec![4.0, 4.0, 4.0],
            user: vec![0.5, 0.5, 0.5],
            system: vec![1.0, 2.0, 1.0],
            peak: Some(2 << 20),
            syncs: Some(0.0),
            calls: None,
        };
        assert_eq!(
            cost_line(&cost),
            "| load | tar | 2.00 s | 4.00 s | nothing | 1.50 s | 2.00 MiB | 0 | - |\n"
        );
    }

    #[test]
    fn remarks_stay_and_the_rest_is_made_anew() {
        let mut results = Results::default();
        let empty = page(&results, &["load"], "## Method\n\nPairs.\n", "");
        assert!(empty.contains("Nothing is here yet") && empty.contains("nothing yet"), "{empty}");
        let written =
            empty.replace("nothing yet.", "Deleting takes 30 ms: the kernel frees inodes one by one.");
        results.rows.insert(
            "load".to_owned(),
            Measured { claims: vec![claim(Target::Faster(4.0))], ..Measured::default() },
        );
        let made = page(&results, &["load", "export"], "## Method\n\nTurns.\n", &written);
        assert!(made.contains("inodes one by one."), "{made}");
        assert!(made.contains("Turns.") && !made.contains("Pairs."), "{made}");
        assert!(made.contains("| load, gzip | 3.00 s |") && made.contains("Not measured: export."), "{made}");
        assert_eq!(page(&results, &["load", "export"], "## Method\n\nTurns.\n", &made), made);
    }

    #[test]
    fn a_quick_run_is_not_taken_for_a_measurement() {
        let mut results = Results::default();
        let quick = Session { quick: true, ..Session::default() };
        results.rows.insert("load".to_owned(), Measured { session: quick, ..Measured::default() });
        assert!(page(&results, &["load"], "", "").contains("No figure here means anything"));
    }
}
