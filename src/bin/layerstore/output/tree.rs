//! Trees drawn with lines.

use std::env;

/// The lines that a tree is drawn with.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    branch: &'static str,
    last: &'static str,
    down: &'static str,
}

const BLANK: &str = "   ";
const UNICODE: Lines = Lines { branch: "\u{251c}\u{2500} ", last: "\u{2514}\u{2500} ", down: "\u{2502}  " };
const ASCII: Lines = Lines { branch: "|- ", last: "`- ", down: "|  " };

impl Lines {
    /// Those that the locale can show.
    pub fn of_locale() -> Self {
        Self::of(|name| env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| variable(name).filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { UNICODE } else { ASCII }
    }

    /// The prefixes of the nodes of a forest that is given as depths in the order of drawing.
    pub fn prefixes(self, depths: &[usize]) -> Vec<String> {
        // From the end: at each depth, whether a sibling follows.
        let mut follows: Vec<bool> = Vec::new();
        let mut prefixes: Vec<String> = Vec::with_capacity(depths.len());
        for depth in depths.iter().rev() {
            follows.resize(depth.saturating_add(1), false);
            let mut prefix = String::new();
            // Roots stand at the margin, and have no line between them.
            for (level, more) in follows.iter().enumerate().skip(1) {
                prefix.push_str(match (level == *depth, more) {
                    (true, true) => self.branch,
                    (true, false) => self.last,
                    (false, true) => self.down,
                    (false, false) => BLANK,
                });
            }
            if let Some(more) = follows.last_mut() {
                *more = true;
            }
            prefixes.push(prefix);
        }
        prefixes.reverse();
        prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_join_siblings_and_leave_others_apart() {
        let depths = [0, 1, 2, 2, 1, 2, 0, 1];
        assert_eq!(ASCII.prefixes(&depths), ["", "|- ", "|  |- ", "|  `- ", "`- ", "   `- ", "", "`- "]);
        assert!(ASCII.prefixes(&[]).is_empty());
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let lines = |set: &'static [(&str, &str)]| {
            Lines::of(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
                .last
        };
        assert_eq!(lines(&[("LANG", "en_US.UTF-8")]), UNICODE.last);
        assert_eq!(lines(&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]), ASCII.last);
        assert_eq!(lines(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]), UNICODE.last);
        assert_eq!(lines(&[]), ASCII.last);
    }
}
