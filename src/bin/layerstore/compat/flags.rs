//! Flags as the scripts of the reference write them: the rules of its parser, which are none that clap knows.
//!
//! - A flag with two dashes is a word, one with one dash a letter; a word with one dash that is no flag stands for its
//!   letters, one after the other.
//! - A value stands behind `=`, without one pair of quotes around it, or is the next word. A switch takes one only
//!   behind `=`.
//! - The first word that is no flag ends them, and so does `--`.

use std::collections::VecDeque;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// Nothing, or yes or no behind `=`.
    Switch,
    /// A value. The last one counts.
    Text,
    /// A value. All of them count.
    List,
}

/// A flag that a command takes, or every command.
#[derive(PartialEq, Eq, Debug)]
pub struct Flag {
    /// Its spellings, with their dashes.
    pub names: &'static [&'static str],
    /// What it takes.
    pub takes: Takes,
    /// For the usage text.
    pub about: &'static str,
}

/// The flags that were given, in their order.
#[derive(Clone, Default, Debug)]
pub struct Flags(Vec<(&'static Flag, Value)>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Switch(bool),
    Text(String),
}

/// Why flags mean nothing.
#[derive(PartialEq, Eq, Debug)]
pub enum FlagError {
    /// They ask for help.
    Help,
    /// One of them is wrong: the message.
    Wrong(String),
}

impl Flags {
    /// Whether a switch is on.
    pub fn is(&self, flag: &Flag) -> bool {
        matches!(self.last(flag), Some(Value::Switch(true)))
    }

    /// What a switch was set to, if it was given.
    pub fn switch(&self, flag: &Flag) -> Option<bool> {
        match self.last(flag) {
            Some(Value::Switch(on)) => Some(*on),
            _ => None,
        }
    }

    /// The value of a flag; `None` if it was not given, or empty.
    pub fn text(&self, flag: &Flag) -> Option<&str> {
        match self.last(flag) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Every value of a flag.
    pub fn list(&self, flag: &Flag) -> Vec<&str> {
        let texts = self.0.iter().filter(|(given, _)| *given == flag).map(|(_, value)| value);
        texts
            .filter_map(|value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
            .collect()
    }

    fn last(&self, flag: &Flag) -> Option<&Value> {
        self.0.iter().rev().find(|(given, _)| *given == flag).map(|(_, value)| value)
    }

    /// Takes the flags of `known` off the front of `words`, in addition to those that were given earlier.
    ///
    /// Returns [`FlagError::Help`] if one asks for help, and [`FlagError::Wrong`] if one is unknown or lacks its value.
    pub fn parse(&mut self, known: &[&'static Flag], words: &mut VecDeque<String>) -> Result<(), FlagError> {
        while let Some(word) = words.front() {
            if !word.starts_with('-') || word == "-" {
                break;
            }
            let Some(word) = words.pop_front() else { break };
            if word == "--" {
                break;
            }
            match self.parse_word(&word, known, words) {
                Err(Unknown::Group(name)) => self.parse_group(&name, known, words)?,
                Err(Unknown::Failed(error)) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn parse_word(
        &mut self,
        word: &str,
        known: &[&'static Flag],
        words: &mut VecDeque<String>,
    ) -> Result<(), Unknown> {
        let wrong = |text: String| Err(Unknown::Failed(FlagError::Wrong(text)));
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(unquoted(value))),
            None => (word, None),
        };
        if name == "-" {
            return wrong(format!("bad flag syntax: {word}"));
        }
        let Some(flag) = known.iter().find(|flag| flag.names.contains(&name)) else {
            return match name {
                "-h" | "-help" | "--help" => Err(Unknown::Failed(FlagError::Help)),
                name if name.starts_with("--") => wrong(not_defined(name)),
                name => Err(Unknown::Group(name.to_owned())),
            };
        };
        let value = match (flag.takes, value) {
            (Takes::Switch, None) => Value::Switch(true),
            (Takes::Switch, Some(text)) => match boolean(text) {
                Some(on) => Value::Switch(on),
                None => {
                    return wrong(format!(
                        "invalid boolean value {text:?} for  {name}: strconv.ParseBool: parsing {text:?}: invalid syntax"
                    ));
                }
            },
            (Takes::Text | Takes::List, Some(text)) => Value::Text(text.to_owned()),
            (Takes::Text | Takes::List, None) => match words.pop_front() {
                Some(text) => Value::Text(text),
                None => return wrong(format!("flag needs an argument: {name}")),
            },
        };
        self.0.push((*flag, value));
        Ok(())
    }

    /// `-qj` is `-q -j`. A letter that takes a value takes the word behind the group.
    fn parse_group(
        &mut self,
        name: &str,
        known: &[&'static Flag],
        words: &mut VecDeque<String>,
    ) -> Result<(), FlagError> {
        let letters = name.strip_prefix('-').unwrap_or(name);
        if letters.chars().count() < 2 {
            return Err(FlagError::Wrong(not_defined(name)));
        }
        for letter in letters.chars() {
            match self.parse_word(&format!("-{letter}"), known, words) {
                Ok(()) => {}
                Err(Unknown::Failed(FlagError::Help)) => return Err(FlagError::Help),
                Err(_) => return Err(FlagError::Wrong(not_defined(name))),
            }
        }
        Ok(())
    }
}

/// Why one word could not be taken.
enum Unknown {
    /// It is no flag, but perhaps several letters.
    Group(String),
    Failed(FlagError),
}

fn not_defined(name: &str) -> String {
    format!("flag provided but not defined: {name}")
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

/// The spellings of a switch's value.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static QUICK: Flag = Flag { names: &["--quick", "-q"], takes: Takes::Switch, about: "" };
    static JSON: Flag = Flag { names: &["--json", "-j"], takes: Takes::Switch, about: "" };
    static ID: Flag = Flag { names: &["--id", "-i"], takes: Takes::Text, about: "" };
    static NAME: Flag = Flag { names: &["--name", "-n"], takes: Takes::List, about: "" };
    const KNOWN: &[&Flag] = &[&QUICK, &JSON, &ID, &NAME];

    fn parsed(text: &str) -> Result<(Flags, Vec<String>), FlagError> {
        let mut words = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let mut flags = Flags::default();
        flags.parse(KNOWN, &mut words)?;
        Ok((flags, words.into()))
    }

    fn wrong(text: &str) -> String {
        match parsed(text) {
            Err(FlagError::Wrong(message)) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn values_stand_behind_an_equals_sign_or_follow() {
        for text in ["--id=x", "-i=x", "--id x", "-i x", "--id='x'", "-i=\"x\"", "-i y -i x"] {
            let (flags, rest) = parsed(text).unwrap();
            assert_eq!(flags.text(&ID), Some("x"), "{text}");
            assert!(rest.is_empty(), "{text}");
        }
        let unpaired = parsed("--id='x\"").unwrap().0;
        assert_eq!(unpaired.text(&ID), Some("'x\""));
        assert_eq!(parsed("--id=a=b").unwrap().0.text(&ID), Some("a=b"));
        assert_eq!(parsed("-n a --name=b -n c").unwrap().0.list(&NAME), ["a", "b", "c"]);
        assert_eq!(parsed("--id=").unwrap().0.text(&ID), None);
        assert_eq!(parsed("-i -q").unwrap().0.text(&ID), Some("-q"));
    }

    #[test]
    fn flags_end_with_the_first_word() {
        let rest = |text| parsed(text).unwrap().1;
        assert_eq!(rest("-q two -j"), ["two", "-j"]);
        assert_eq!(rest("-q - -j"), ["-", "-j"]);
        assert_eq!(rest("-q -- -j"), ["-j"]);
        assert!(rest("-q --").is_empty());
    }

    #[test]
    fn switches_take_a_value_only_behind_an_equals_sign() {
        let is = |text| parsed(text).unwrap().0.is(&QUICK);
        for text in ["-q", "--quick", "-q=1", "--quick=t", "-q=0 -q", "--quick='true'", "-qj", "-jq"] {
            assert!(is(text), "{text}");
        }
        for text in ["", "-q=0", "--quick=False", "-q -q=f"] {
            assert!(!is(text), "{text}");
        }
        assert_eq!(parsed("-q false").unwrap().1, ["false"]);
        assert_eq!(
            wrong("--quick=maybe"),
            "invalid boolean value \"maybe\" for  --quick: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
    }

    #[test]
    fn one_dash_is_a_letter_or_several() {
        let (flags, rest) = parsed("-jin x y two").unwrap();
        assert!(flags.is(&JSON));
        assert_eq!(
            (flags.text(&ID), flags.list(&NAME), rest),
            (Some("x"), vec!["y"], vec!["two".to_owned()])
        );
        assert_eq!(wrong("-quick"), "flag provided but not defined: -quick");
        assert_eq!(wrong("-qx"), "flag provided but not defined: -qx");
        assert_eq!(wrong("-x"), "flag provided but not defined: -x");
        assert_eq!(wrong("--q"), "flag provided but not defined: --q");
        assert_eq!(wrong("-q --nope=1"), "flag provided but not defined: --nope");
        assert_eq!(wrong("-n"), "flag needs an argument: -n");
        assert_eq!(wrong("--name"), "flag needs an argument: --name");
        assert_eq!(wrong("-=x"), "bad flag syntax: -=x");
    }

    #[test]
    fn help_is_asked_for_in_three_ways() {
        for text in ["-h", "-help", "--help", "-q --help two", "-qh"] {
            assert!(matches!(parsed(text), Err(FlagError::Help)), "{text}");
        }
    }

    #[test]
    fn what_was_given_first_is_overridden_and_added_to() {
        let mut flags = parsed("-n a -q -i x").unwrap().0;
        flags.parse(KNOWN, &mut ["-n=b".to_owned(), "-q=0".to_owned()].into()).unwrap();
        assert_eq!(
            (flags.list(&NAME), flags.is(&QUICK), flags.text(&ID)),
            (vec!["a", "b"], false, Some("x"))
        );
    }
}
